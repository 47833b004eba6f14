"""What compilers and verifiers say, in one sentence with a place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.ebpf.diagnostics import compiler_error, verifier_error


@pytest.mark.parametrize(
    ("said", "what", "where"),
    [
        (
            "In file included from x:1:\nprogram.c:4:12: error: expected expression\n s+;\n",
            "expected expression",
            "4:12",
        ),
        ("program.c:2:10: fatal error: 'x.h' file not found", "'x.h' file not found", "2:10"),
        ("program.c:1:1: warning: odd\nprogram.c:3:2: error: no member named 'a'", "no member named 'a'", "3:2"),
        ("layout.c:1:1: error: static assertion failed", "not laid out as its text says", "1:1"),
        (
            "Error at line 7: Unsupport signed division for DAG: 0x1\nLLVM ERROR: Cannot select",
            "signed division",
            "7:1",
        ),
        (
            "error: harness.c:9:9: in function rv_chunk i32 (%struct.__sk_buff*): Looks like the BPF stack limit of",
            "512 bytes of local variables",
            "1:1",
        ),
        (
            "error: program.c:5:38: in function rv_chunk i32 (%struct.__sk_buff*): A call to built-in function 'f'",
            "arithmetic that the kernel does not have",
            "5:38",
        ),
        ("LLVM ERROR: out of ideas", "the compiler gave up on the program: LLVM ERROR: out of ideas", "1:1"),
        ("", "the compiler gave up on the program", "1:1"),
    ],
)
def test_a_compilers_message_becomes_one_sentence(said: str, what: str, where: str) -> None:
    error = compiler_error(said, crashed=True)
    assert what in error.what
    assert "\n" not in error.what
    assert error.where == where


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("R2 unbounded memory access, make sure to bounds check any such access", "beyond its input or the state"),
        ("invalid access to map value, value_size=8 off=8 size=8", "beyond its input or the state"),
        ("R1 invalid mem access 'scalar'", "does not lead into its input"),
        ("R1 leaks addr into map", "address of the kernel"),
        ("math between map_value pointer and 4294967295 is not allowed", "cannot be proved safe"),
        ("R3 bitwise operator ^= on pointer prohibited", "cannot be proved safe"),
        ("infinite loop detected at insn 12", "may not end"),
        ("BPF program is too large. Processed 1000001 insn", "too many paths"),
        ("a word never heard", "the kernel's verifier refuses the program: a word never heard"),
    ],
)
def test_a_verifiers_last_line_becomes_one_sentence(line: str, what: str) -> None:
    log = f"0: R1=ctx() R10=fp0\n1: (b7) r0 = 0\n{line}\nprocessed 40 insns (limit 1000000) total_states 2\n"
    error = verifier_error(log)
    assert what in error.what
    assert line in error.details["log"]


@given(st.text(max_size=300))
def test_any_words_become_an_error_that_can_travel(said: str) -> None:
    for error in (compiler_error(said, crashed=False), verifier_error(said)):
        assert error.what
        assert len(error.what) < 500
        assert len(error.details["log"]) <= 2000
