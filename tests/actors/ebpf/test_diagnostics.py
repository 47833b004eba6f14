"""What compilers and verifiers say, in one sentence with a place."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.ebpf.diagnostics import compiler_error, verifier_error
from runvisor.actors.ebpf.line_table import LineTable
from runvisor.policies.result import Result


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


TABLE = LineTable([[0, 0, 0], [38, 7, 14], [41, 9, 2], [44, 0, 0]])
STATE = "R1_w=map_value(map=rv_state,ks=4,vs=24,umax=17179869180)"


@pytest.mark.parametrize(
    ("last", "reason", "what", "where"),
    [
        (
            f"39: (63) *(u32 *)(r1 +0) = r2 ; {STATE} R2_w=1",
            "R1 unbounded memory access, make sure to bounds check any such access",
            "the access on line 7 may write beyond the state",
            "7:14",
        ),
        (
            "41: (79) r3 = *(u64 *)(r2 +8) ; R2=map_value(map=rv_records,ks=4,vs=524288)",
            "invalid access to map value, value_size=524288 off=524296 size=8",
            "the access on line 9 may read beyond the record",
            "9:2",
        ),
        (
            "44: (73) *(u8 *)(r4 +0) = r5 ; R4=map_value(map=rv_collected,ks=4,vs=4096)",
            "R4 max value is outside of the allowed memory range",
            "the program may write beyond the output",
            "verifier",
        ),
        ("38: (0f) r1 += r2", "infinite loop detected at insn 41", "the program has a loop that may not end", "9:2"),
        (
            "40: (05) goto pc-3",
            "the sequence of 8193 jumps is too complex.",
            "the program has too many paths to be checked",
            "7:14",
        ),
    ],
)
def test_the_sentence_names_the_line_and_what_is_reached(last: str, reason: str, what: str, where: str) -> None:
    error = verifier_error(f"0: R1=ctx() R10=fp0\n{last}\n{reason}\nprocessed 40 insns (limit 1000000)\n", TABLE)
    assert (error.what, error.where) == (what, where)
    assert reason in error.details["log"]


STRUCTS = "struct state { u32 seen[4]; u64 total; };"
ENTRY = "int on_record(struct record *r, struct state *s)"
REFUSED = [
    (
        f"{STRUCTS}\n{ENTRY}\n{{\n    u32 slot = r->id;\n    s->seen[slot]++;\n    return 1;\n}}",
        "the access on line 5 may read beyond the state",
    ),
    (
        f"{STRUCTS}\nstatic void note(struct state *s, u32 slot)\n{{\n    s->seen[slot] = 1;\n}}\n"
        f"{ENTRY}\n{{\n    note(s, r->kind);\n    return 1;\n}}",
        "the access on line 4 may write beyond the state",
    ),
    (
        f"{STRUCTS}\n{ENTRY}\n{{\n    if (r->kind)\n        s->total += r[1].value;\n    return 1;\n}}",
        "the access on line 5 may read beyond the record",
    ),
    (
        f"{STRUCTS}\n{ENTRY}\n{{\n\n    s->total = *(u64 *)r->value;\n    return 1;\n}}",
        "the program uses a pointer that does not lead into its input, the state or a local variable",
    ),
    (
        f"{STRUCTS}\n{ENTRY}\n{{\n\n    for (u32 n = 0; n < r->id; n++)\n"
        "        s->total = s->total * 3 + n;\n    return 1;\n}",
        "the program has a loop that the compiler could not unroll",
    ),
]


@pytest.mark.kernel
@pytest.mark.root
@pytest.mark.parametrize(("source", "what"), REFUSED)
def test_what_the_kernel_really_refuses_is_placed(ask: Callable[..., Result], source: str, what: str) -> None:
    error = ask(source).error
    assert error is not None
    assert error.what == what
    line = re.search(r"line (\d+)", what)
    assert error.where.startswith(f"{line[1]}:" if line else "5:")
    assert error.remedy
    assert ("log" in error.details) == ("loop" not in what), "the scan has no log"
