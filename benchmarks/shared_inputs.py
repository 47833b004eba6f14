"""What does a large input cost an isolate: mapped from memory that all share, or copied for each execution?

Run it with ``python -m benchmarks.shared_inputs [rounds]``. The same array goes in three
ways, in turn: laid out in sealed memory once and mapped by every execution,
laid out anew for each, and sent as bytes, which the pool packs and the guest
decodes. Each program reads one number of every page, so that no way is
spared the pages themselves.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np

from benchmarks.first_answer import Parts
from benchmarks.measure import Contender, apart, interleave, report, summarise
from runvisor.actors import registry
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Value
from runvisor.supervisor.shared import Shared, sealed_inputs

ROUNDS = 60
SIZE_BYTES = 16 * MiB
CODE = "let sum = 0; for (let i = 0; i < inputs.length; i += 512) sum += inputs[i]; sum"
COPIED = "sent as bytes"
MAPPED = "shared once, mapped"
LAID_OUT = "laid out anew, mapped"
NOTHING = "no input"


def table() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the input."""
    return np.arange(SIZE_BYTES // 8, dtype="f8")


def isolates() -> tuple[Callable[[Value, str], Result], Callable[[], None]]:
    """Start the runtime; return what runs a program on an input, and its close."""
    runtime = registry.create("v8", PoolSize(minimum=6, maximum=16))
    runtime.start()
    grant = Grant("bench", Trust.UNTRUSTED, Permissions())

    def run(inputs: Value, code: str) -> Result:
        result = runtime.execute(Task(code, "javascript", inputs), "isolate", grant, Watch())
        result.unwrap()
        return result

    return run, runtime.close


def mapped() -> Parts:
    """One memory for all executions."""
    run, close = isolates()
    shared = Shared(table())

    def end() -> None:
        shared.close()
        close()

    return lambda: _use(run, shared), end


def laid_out() -> Parts:
    """A memory for each execution, as a caller has who does not share."""
    run, close = isolates()
    array = table()

    def call() -> None:
        with sealed_inputs(array) as inputs:
            _use(run, inputs)

    return call, close


def copied() -> Parts:
    """Bytes in the frame of each execution."""
    run, close = isolates()
    array = table()
    return lambda: _use(run, array), close


def nothing() -> Parts:
    """The same without an input: what is left is the input's cost."""
    run, close = isolates()
    return lambda: _use(run, None, "1 + 1"), close


def _use(run: Callable[[Value, str], Result], inputs: Value, code: str = CODE) -> None:
    run(inputs, code)


def peaks_mib() -> dict[str, float]:
    """Return how much memory an execution takes each way, beyond its warm state."""
    run, close = isolates()
    array = table()
    try:
        with Shared(array) as shared:
            ways: dict[str, Value] = {MAPPED: shared, COPIED: array}
            found = {
                name: statistics.median(run(value, CODE).usage.peak_memory_bytes or 0 for _ in range(5)) / MiB
                for name, value in ways.items()
            }
    finally:
        close()
    return {name: round(peak, 1) for name, peak in found.items()}


def main(rounds: int) -> None:
    """Measure and report."""
    ways = {COPIED: copied, LAID_OUT: laid_out, MAPPED: mapped, NOTHING: nothing}
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {name: stack.enter_context(apart(make)) for name, make in ways.items()}
        times = interleave(contenders, rounds=rounds, pauses_s=dict.fromkeys(ways, 0.1))
    rows = summarise(times, COPIED)
    extra = {"input": f"{SIZE_BYTES // MiB} MiB of float64", "peak MiB of an execution": peaks_mib()}
    report("shared inputs", rows, COPIED, extra)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
