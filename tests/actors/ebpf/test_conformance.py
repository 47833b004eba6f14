"""Instructions do what the public conformance suite says, if it is at hand; and its runner can tell."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.conformance.bpf import outcomes, result_of
from benchmarks.conformance.bpf_assembler import AssemblyError, assemble
from benchmarks.conformance.bpf_cases import APPLIES, cases, listed, read_case, verdict
from runvisor.actors.ebpf.executors import Executors
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.runtime import PoolSize

SUITE = os.environ.get("RUNVISOR_BPF_CONFORMANCE", "")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("mov32 %r1, -1", "b4 01 0000 ffffffff"),
        ("add %r3, %r4  # a remark", "0f 43 0000 00000000"),
        ("sdiv32 %r1, %r2", "3c 21 0100 00000000"),
        ("neg %r9", "87 09 0000 00000000"),
        ("movsx1632 %r1, %r2", "bc 21 1000 00000000"),
        ("movsx3264 %r1, %r2", "bf 21 2000 00000000"),
        ("be16 %r5", "dc 05 0000 10000000"),
        ("bswap64 %r5", "d7 05 0000 40000000"),
        ("ldxsh %r0, [%r1-2]", "89 10 feff 00000000"),
        ("stxdw [%r10-8], %r6", "7b 6a f8ff 00000000"),
        ("stb [%r1+0x10], 0xff", "72 01 1000 ff000000"),
        ("lddw %r2, 0x1122334455667788", "18 02 0000 88776655 00000000 44332211"),
        ("lock fetch xor32 [%r1+4], %r2", "c3 21 0400 a1000000"),
        ("lock cmpxchg [%r10-8], %r2", "db 2a f8ff f1000000"),
        ("jslt32 %r1, %r2, +3", "ce 21 0300 00000000"),
        ("call local f\nexit\nf:", "85 10 0000 01000000 95 00 0000 00000000"),
        ("ja32 end\nexit\nend:", "06 00 0000 01000000 95 00 0000 00000000"),
        ("again:\njeq %r1, 7, again", "15 01 ffff 07000000"),
    ],
)
def test_the_assembler_encodes_as_the_standard_says(text: str, code: str) -> None:
    assert assemble(text).hex() == code.replace(" ", "")


@pytest.mark.parametrize("text", ["mov %rx, 1", "ja nowhere", "what %r1", "mov %r0, 0x100000000", "lock %r1"])
def test_what_is_no_assembly_is_refused(text: str) -> None:
    with pytest.raises(AssemblyError):
        assemble(text)


def test_a_case_is_left_out_for_its_text_alone() -> None:
    def rule(body: str) -> str:
        return verdict(read_case("case", f"-- asm\n{body}\nexit\n-- result\n0"))

    assert rule("mov %r0, 0") == rule("call local exit") == rule("lsh32 %r0, 31") == rule("lsh %r0, 63") == APPLIES
    assert "calls a helper" in rule("call 5")
    assert "calls by register" in rule("call %r2")
    for shift in ("lsh32 %r0, 32", "arsh %r0, 64", "rsh32 %r0, -1"):
        assert "beyond the width" in rule(shift)


def test_the_list_names_each_case_once_with_a_rule() -> None:
    found = listed()
    assert len(found) == 313
    assert sum(what == APPLIES for what in found.values()) == 299


@pytest.fixture(scope="module")
def executors() -> Iterator[Executors]:
    probe = probe_ebpf()
    if not probe.available:
        pytest.skip(f"{probe.detail}; {probe.remedy}")
    made = Executors("conformance", frozenset({"CAP_BPF", "CAP_PERFMON"}), {}, PoolSize(minimum=1, maximum=1))
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.kernel
@pytest.mark.root
def test_a_case_runs_in_the_kernel_with_its_memory_and_all_bits_of_its_result(executors: Executors) -> None:
    def run(body: str, memory: str = "") -> int | str:
        section = f"-- mem\n{memory}\n" if memory else ""
        return result_of(executors, read_case("case", f"-- asm\n{body}\nexit\n{section}-- result\n0"))

    assert run("lddw %r0, 0x1122334455667788") == 0x1122334455667788
    assert run("mov %r0, -1") == (1 << 64) - 1
    assert run("ldxh %r0, [%r1+2]\nbe16 %r0\nadd %r0, %r2", "aa bb 01 02") == 0x0102 + 4
    assert "invalid access" in str(run("ldxb %r0, [%r1+4]", "aa bb 01 02")), "the memory ends where the case says"
    assert "!read_ok" in str(run("mov %r0, %r7"))


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.root
@pytest.mark.timeout(300)
@pytest.mark.skipif(not SUITE, reason="RUNVISOR_BPF_CONFORMANCE names no checkout: benchmarks/conformance/README.md")
def test_every_applicable_case_of_the_suite_passes() -> None:
    folder = Path(SUITE)
    assert {case.name: verdict(case) for case in cases(folder)} == listed(), "the list is what the rules say"
    found = list(outcomes(folder))
    assert [(case.name, why) for case, outcome, why in found if outcome == "failed"] == []
    assert sum(outcome == "passed" for _, outcome, _ in found) == sum(what == APPLIES for what in listed().values())
