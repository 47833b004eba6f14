"""Do eBPF instructions do here what the public conformance suite says?

Run it with ``python -m benchmarks.conformance.bpf FOLDER``, where the folder is a
checkout of the suite (see README.md here). Each case goes the way of a compiled packet
filter: to a jailed executor with the capabilities of its tier, which loads it as a
socket filter and runs it with BPF_PROG_TEST_RUN. Around the case stand a few
instructions that call it as a function, with its memory in the program's state, and
put all 64 bits of its result there too.

``--list`` prints the list of applicable cases anew, without running any.
"""

from __future__ import annotations

import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.conformance.bpf_assembler import assemble
from benchmarks.conformance.bpf_cases import APPLIES, Case, cases, listed, verdict
from runvisor.actors.ebpf.executors import Executors
from runvisor.actors.ebpf.packets.agreement import STATE_MAP
from runvisor.actors.ebpf.packets.work import PacketArtifact, PacketWork
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.runtime import PoolSize
from runvisor.policies.packets import PacketInputs

_CAPABILITIES: Final = frozenset({"CAP_BPF", "CAP_PERFMON"})
_TIMEOUT_S: Final = 10.0
_RESULT: Final = struct.Struct("<Q")
_COST: Final = 1_000_000
_LOAD_STATE: Final = struct.pack("<BBhiBBhi", 0x18, 0x11, 0, STATE_MAP, 0, 0, 0, 0)
"""``r1 = the map of this number``: two words that assembly has no name for."""
_CLEARED: Final = struct.pack("<Q", 0xDEADBEEF_DEADBEEF)


def wrapped(case: Case) -> bytes:
    """Return a program that calls a case as a function and keeps its result.

    The state is the result, then the memory, to the last byte: what reads beyond it is
    refused.
    """
    memory = case.memory
    arguments = f"add %r1, {_RESULT.size}\nmov %r2, {len(memory)}" if memory is not None else "mov %r1, 0\nmov %r2, 0"
    head = assemble("mov %r2, %r10\nadd %r2, -4\nstw [%r10-4], 0") + _LOAD_STATE
    rest = assemble(
        f"call 1\njne %r0, 0, +2\nmov %r0, 0\nexit\nmov %r6, %r0\nmov %r1, %r0\n{arguments}\n"
        "call local case\nstxdw [%r6], %r0\nmov %r0, 0\nexit\ncase:"
    )
    return head + rest + case.instructions


def result_of(executors: Executors, case: Case) -> int | str:
    """Run a case; return what its register 0 held, or what went wrong."""
    state = _CLEARED + (case.memory or b"")
    work = PacketWork(
        PacketArtifact(wrapped(case), _COST, "filter", len(state)), PacketInputs.of({"packets": []}), state, 0
    )
    with executors.lend("suite") as executor:
        answer = executor.run(work, time.monotonic() + _TIMEOUT_S, lambda: None)
    if answer.get("op") != "done":
        lines = [line for line in str(answer.get("log", answer)).splitlines() if line and "processed" not in line]
        return f"refused: {' / '.join(lines[-2:])}"
    value: int = _RESULT.unpack_from(answer["state"])[0]
    return value


def outcomes(folder: Path) -> Iterator[tuple[Case, str, str]]:
    """Run the applicable cases; yield each case with ``passed``, ``failed`` or ``left out``, and why.

    Args:
        folder: A checkout of the suite.
    """
    known = listed()
    executors = Executors("conformance", _CAPABILITIES, {}, PoolSize(minimum=1, maximum=1))
    executors.start()
    try:
        for case in cases(folder):
            rule = known.get(case.name, "it is not in the list")
            if rule != verdict(case):
                yield case, "failed", f"the list says {rule!r}, the rules {verdict(case)!r}"
            elif rule != APPLIES:
                yield case, "left out", rule
            else:
                found = result_of(executors, case)
                is_right = found == case.result
                yield case, "passed" if is_right else "failed", "" if is_right else f"{found}, not {case.result:#x}"
    finally:
        executors.close()


def main(folder: str, *, only_list: bool = False) -> int:
    """Print a table; return 1 if an applicable case failed."""
    if only_list:
        for case in cases(Path(folder)):
            print(f"{case.name}: {verdict(case)}")
        return 0
    probe = probe_ebpf()
    if not probe.available:
        sys.exit(f"{probe.detail}; {probe.remedy}")
    counts: Counter[str] = Counter()
    for case, outcome, why in outcomes(Path(folder)):
        counts[outcome] += 1
        if outcome != "passed":
            print(f"{outcome}: {case.name}: {why}")
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['left out']} left out")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--list"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    sys.exit(main(arguments[0], only_list="--list" in sys.argv))
