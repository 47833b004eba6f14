"""Texts of any kind to instructions, in a jailed child."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runvisor.actors.ebpf.compiler import BODY_PATH, Compiler
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.runtime import PoolSize
from runvisor.policies.bytecode import decode
from runvisor.policies.errors import GuestSyntaxError, TimeLimitExceeded

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.root,
    pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail),
]

MAIN = f"""
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
#include "{BODY_PATH}"
int first(void *context) {{ u32 key = 0; return rv_lookup(rv_map(1, 5), &key) ? value() : 0; }}
int second(void *context) {{ return 2; }}
"""
BODY = "static inline __attribute__((always_inline)) int value(void) { return 7; }"


@pytest.fixture(scope="module")
def compiler() -> Iterator[Compiler]:
    compiler = Compiler(PoolSize(minimum=0, maximum=1))
    try:
        compiler.start()
        yield compiler
    finally:
        compiler.close()


def ignore() -> None:
    """Nobody waits for the start."""


def test_each_function_asked_for_is_a_program_and_maps_have_their_numbers(compiler: Compiler) -> None:
    codes = compiler.instructions(MAIN, BODY, 30.0, ignore, ("first", "second"))
    assert [(each.opcode, each.source, each.immediate) for each in decode(codes["first"]) if each.opcode == 0x18] == [
        (0x18, 1, 5)
    ]
    assert [each.immediate for each in decode(codes["second"])] == [2, 0]


@pytest.mark.parametrize(
    ("main", "functions"), [(MAIN, ("first", "third")), ("int first(void *c) { return nothing; }", ("first",))]
)
def test_what_does_not_compile_or_is_not_there_is_a_syntax_error(
    compiler: Compiler, main: str, functions: tuple[str, ...]
) -> None:
    with pytest.raises(GuestSyntaxError):
        compiler.instructions(main, BODY, 30.0, ignore, functions)


def test_a_compilation_ends_at_its_time(compiler: Compiler) -> None:
    with pytest.raises(TimeLimitExceeded, match="was not compiled within"):
        compiler.instructions(MAIN, BODY, 0.001, ignore, ("first",))
