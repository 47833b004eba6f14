"""Programs that mean harm, and the one defence that stops each."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.policies.errors import (
    CapabilityDenied,
    GuestSyntaxError,
    RunvisorError,
    TimeLimitExceeded,
)
from runvisor.policies.records import parse_program
from runvisor.policies.result import Result
from runvisor.policies.trust import Trust

pytestmark = [pytest.mark.kernel, pytest.mark.root]

EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
Ask = Callable[..., Result]


def function(body: str, state: str = "u64 total;", before: str = "") -> str:
    """Return a program whose function has this body."""
    declared = f"struct state {{ {state} }};\n" if state else ""
    return f"{declared}{before}\nint on_record(struct record *r, struct state *s)\n{{\n{body}\nreturn 0;\n}}\n"


GOOD = function("s->total += 1; return 1;")


def error_of(ask: Ask, source: str, **options: Any) -> RunvisorError:
    """Run a program that must fail, and check that the runtime goes on as if nothing were."""
    result = ask(source, **options)
    assert result.error is not None
    assert result.value is None
    assert ask(GOOD).unwrap() == {"selected": 8, "state": {"total": 8}}
    return result.error


def compile_unread(runtime: EbpfRuntime, source: str) -> bytes:
    """Give a text to the compiler that the reading of the language would have refused."""
    program = replace(parse_program(GOOD, EVENT), source=source)
    return runtime._compiler.compile(program, "may_goto", 4096, 10.0, lambda: None).instructions


def compiled_or_refused(runtime: EbpfRuntime, source: str) -> bytes:
    """Return all that comes back for a text: instructions, or words."""
    try:
        return compile_unread(runtime, source)
    except (GuestSyntaxError, CapabilityDenied) as error:
        return f"{error} {error.details}".encode()


# The compiler, with the check of the text taken away


def test_a_file_of_the_host_cannot_be_included(runtime: EbpfRuntime, tmp_path: Path) -> None:
    canary = tmp_path / "canary.h"
    canary.write_text("tweet tweet")
    for path in (str(canary), "/etc/hostname", "/etc/shadow", f"/proc/{os.getpid()}/environ", "/sys/kernel/notes"):
        with pytest.raises(GuestSyntaxError, match=r"file not found|cannot open file"):
            compile_unread(runtime, f'#include "{path}"\n{GOOD}')


def test_a_file_of_the_host_is_not_assembled_in(runtime: EbpfRuntime) -> None:
    marker = Path("/etc/hostname").read_bytes().strip()
    texts = ('asm(".incbin \\"/etc/hostname\\"");\n' + GOOD, function('asm volatile(".incbin \\"/etc/hostname\\"");'))
    for text in texts:
        outcome = compiled_or_refused(runtime, text)
        assert marker not in outcome


def test_a_map_of_bccs_own_cannot_be_made(runtime: EbpfRuntime) -> None:
    with pytest.raises((GuestSyntaxError, CapabilityDenied)):
        compile_unread(runtime, "BPF_HASH(mine, u32, u64);\n" + function("u32 k = 1; mine.increment(k);"))


@pytest.mark.parametrize(
    "stuff", [".quad 0x9500000000000095", ".byte 0x85, 0x20, 0, 0, 6, 0, 0, 0", "r0 = 0 ll\\nexit"]
)
def test_raw_bytes_in_assembly_meet_the_scan_or_the_verifier(ask: Ask, runtime: EbpfRuntime, stuff: str) -> None:
    with contextlib.suppress(GuestSyntaxError, CapabilityDenied):
        compile_unread(runtime, function(f'asm volatile("{stuff}" ::: "r0");'))
    assert ask(GOOD).unwrap()["selected"] == 8


def test_a_compile_child_holds_no_capability_and_no_bpf(runtime: EbpfRuntime) -> None:
    with runtime._compiler._children.lend() as child:
        status = Path(f"/proc/{child.pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    assert "Seccomp:\t2" in status


def test_a_text_that_compiles_for_ever_ends_at_its_deadline(ask: Ask) -> None:
    began = time.monotonic()
    bomb = "#define A(x) (x+x+x+x+x+x+x+x)\n#define B(x) A(A(A(x)))\n#define C(x) B(B(x))\n"
    error = error_of(ask, bomb + function("s->total = C(r->value);"), timeout_s=0.7)
    assert isinstance(error, TimeLimitExceeded | GuestSyntaxError)
    assert time.monotonic() - began < 5


def test_deeply_nested_text_ends_as_an_error(ask: Ask) -> None:
    error = error_of(ask, function("return " + "(" * 3000 + "1" + ")" * 3000 + ";"))
    assert isinstance(error, GuestSyntaxError)


def test_a_flood_of_messages_is_cut(ask: Ask) -> None:
    error = error_of(ask, function("nothing;" * 30_000))
    assert isinstance(error, GuestSyntaxError)
    assert len(str(error.details)) < 10_000


# The scan


@pytest.mark.parametrize(
    "body",
    [
        "s->total = bpf_ktime_get_ns();",
        "s->total = bpf_get_current_pid_tgid();",
        "s->total = bpf_get_prandom_u32();",
        "char text[2] = {65, 0}; ((int (*)(void *, int))6)(text, 2);",
        "s->total = ((u64 (*)(u64))166)(0);",
        "s->total = ((u64 (*)(u64))181)(0);",
        "rv_lookup(rv_map(1, 0), r);",
    ],
)
def test_helpers_of_the_kernel_are_denied(ask: Ask, body: str) -> None:
    assert isinstance(error_of(ask, function(body)), CapabilityDenied)


@pytest.mark.parametrize("number", ["0x7e000001", "0x7e000002", "0x7e000003"])
def test_a_forged_stand_in_for_a_kernel_function_is_denied(
    asker: Callable[[EbpfRuntime], Ask], ask: Ask, number: str
) -> None:
    source = function(f"u64 it[2] = {{ 0 }}; ((u64 (*)(void *, int, int)){number})(it, 0, 9);")
    assert isinstance(error_of(ask, source), CapabilityDenied)
    iterating = EbpfRuntime(loop="iterator")
    try:
        iterating.start()
        assert isinstance(error_of(asker(iterating), source), CapabilityDenied)
    finally:
        iterating.close()


@pytest.mark.parametrize(
    "body",
    [
        "for (;;) s->total++;",
        "do s->total = s->total * 3 + 1; while (s->total % 1000);",
        "for (u64 i = 0; i < r->value; i++) s->total += i * i * s->total;",
        "for (int i = 0; i < 1000000; i++) s->total = s->total * 31 + r->id;",
        "again: s->total = s->total * 3 + 1; if (s->total & 1023) goto again;",
    ],
)
def test_loops_that_are_not_unrolled_are_refused(ask: Ask, body: str) -> None:
    error = error_of(ask, function(body))
    assert isinstance(error, GuestSyntaxError)
    assert "loop" in error.what


@pytest.mark.parametrize(
    ("body", "before", "says"),
    [
        (
            "return f(r->kind);",
            "int f(u32 x) { return x > 9 ? 1 : f(x * 2 + 1) + f(x + 1); }",
            "cannot be inlined|loop",
        ),
        ("u32 t[5] = {7, 6, 0, 4, 3}; s->total += t[r->kind % 5];", "", "data outside"),
        ('const char *x = "abc"; s->total += x[r->kind & 3];', "", "data outside"),
        (
            "char b[600]; for (int i = 0; i < 600; i++) b[i] = r->id >> i % 8; s->total = b[r->kind % 600];",
            "",
            "512 bytes|loop",
        ),
        ("s->total = (s64)r->value / -3;", "", "signed division|arithmetic"),
        ("s->total = ((unsigned __int128)r->value * r->value) >> 64;", "", "arithmetic"),
        ("s->nothing = 1;", "", "no member named 'nothing'"),
        ("missing(r);", "", "implicit declaration"),
    ],
)
def test_what_the_kernel_cannot_run_is_refused_in_clear_words(ask: Ask, body: str, before: str, says: str) -> None:
    error = error_of(ask, function(body, before=before))
    assert isinstance(error, GuestSyntaxError)
    assert re.search(says, error.what), error


def test_errors_name_the_authors_line(ask: Ask) -> None:
    assert error_of(ask, "int on_record(struct record *r, struct state *s)\n{\n  return r->nothing;\n}").where == "3:13"
    assert error_of(ask, function("s->total = (s64)r->value / (s64)r->id;")).where == "5:1"


# The verifier

OUT_OF_BOUNDS = [
    "s->xs[r->id] = 1;",
    "s->xs[r->id & 7] = 1;",
    "s->xs[6] = 1;",
    "s->total = s->xs[-1];",
    "s->total = r[1].value;",
    "s->total = r[-1].value;",
    "s->total = ((u8 *)r)[16];",
    "s->total = *(u64 *)(r->value);",
    "s->total = *(volatile u64 *)0;",
    "*(u64 *)0xffffffff81000000ull = 1;",
    "s->total = ((u64 *)s)[r->value];",
    "struct record *other = r + r->id; s->total = other->value;",
]


@pytest.mark.parametrize("body", OUT_OF_BOUNDS)
@pytest.mark.parametrize("trust", [Trust.UNTRUSTED, Trust.VERIFIED])
def test_no_access_leaves_the_record_and_the_state(ask: Ask, body: str, trust: Trust) -> None:
    error = error_of(ask, function(body, "u32 xs[4]; u64 total;"), trust=trust)
    assert isinstance(error, GuestSyntaxError)
    assert error.where == "verifier"
    assert "verifier refuses" not in error.what, "it has words of our own"
    assert error.details["log"]


LEAKS = ["s->total = (u64)r;", "s->total = (u64)s;", "u64 x; s->total += (u64)&x;"]


@pytest.mark.parametrize("body", LEAKS)
def test_untrusted_programs_let_out_no_address_of_the_kernel(ask: Ask, body: str) -> None:
    assert isinstance(error_of(ask, function(body), trust=Trust.UNTRUSTED), GuestSyntaxError)


def test_what_a_tier_gives_up_is_true_and_said(ask: Ask) -> None:
    leak = function("s->total = (u64)r;")
    verified = ask(leak, trust=Trust.VERIFIED)
    assert verified.unwrap()["state"]["total"] > 1 << 47, "if this is refused, strike it off hardening_off"
    assert "kernel_addresses" in verified.isolation.hardening_off
    assert "kernel_addresses" not in ask(GOOD, trust=Trust.UNTRUSTED).isolation.hardening_off


def test_a_program_with_too_many_paths_ends(ask: Ask) -> None:
    lines = "".join(
        f"if (r->value & {1 << n}ull) t[{n % 8}] ^= s->total + {n}; else t[{n % 8}] += {n};" for n in range(48)
    )
    began = time.monotonic()
    result = ask(function(f"u64 t[8] = {{ 0 }}; {lines} s->total += t[r->kind & 7];"), timeout_s=2.0)
    assert result.error is None or isinstance(result.error, GuestSyntaxError | TimeLimitExceeded)
    assert time.monotonic() - began < 6
    assert ask(GOOD).unwrap()["selected"] == 8


def test_writing_to_records_is_allowed_and_changes_only_the_copy(ask: Ask) -> None:
    records = np.ones(5, EVENT)
    assert ask(function("r->value = 9; s->total += r->value; return 1;"), records).unwrap()["state"]["total"] == 45
    assert records["value"].tolist() == [1] * 5
