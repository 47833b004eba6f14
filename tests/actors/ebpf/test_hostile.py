"""Programs that mean harm, and the one defence that stops each."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.policies.errors import (
    CapabilityDenied,
    EngineRefused,
    GuestSyntaxError,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    RunvisorError,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import MiB
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
    assert re.fullmatch(r"5:\d+|verifier", error.where), "the latter where the address is the harness's own sum"
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


# All at once: one program, one ending, and nobody else notices


@dataclass(frozen=True)
class Attempt:
    """A program that means harm, and the one way it may end."""

    source: str
    error: type[RunvisorError]
    says: str
    trust: Trust = Trust.VERIFIED
    limits: Mapping[str, Any] = field(default_factory=dict)


def call(number: int) -> str:
    """Return a program that calls the kernel by number."""
    return function(f"s->total = ((u64 (*)(void *, void *, u64, u64, u64)){number})(r, s, 8, 0, 0);")


ATTEMPTS: dict[str, Attempt] = {
    "tail call": Attempt(call(12), CapabilityDenied, "bpf_tail_call"),
    "write to user memory": Attempt(call(36), CapabilityDenied, "number 36"),
    "read kernel memory": Attempt(call(113), CapabilityDenied, "bpf_probe_read_kernel"),
    "override a return value": Attempt(call(58), CapabilityDenied, "number 58"),
    "send a signal": Attempt(call(109), CapabilityDenied, "number 109"),
    "bpf(2) from a program": Attempt(call(166), CapabilityDenied, "bpf_sys_bpf"),
    "a timer": Attempt(call(169), CapabilityDenied, "bpf_timer_init"),
    "a loop helper": Attempt(call(181), CapabilityDenied, "bpf_loop"),
    "print to the kernel's log": Attempt(call(6), CapabilityDenied, "bpf_trace_printk"),
    "another's map": Attempt(function("s->total = (u64)rv_map(1, 7);"), CapabilityDenied, "not its own"),
    "a variable of the kernel": Attempt(function("s->total = *(u64 *)rv_map(3, 1);"), CapabilityDenied, "not its own"),
    "a call through a number": Attempt(
        function("s->total = ((u64 (*)(void))(s->total + r->value))();"), CapabilityDenied, "does not emit"
    ),
    "the harness's own name": Attempt(
        function("return 1;", before="int rv_chunk(void *skb) { return 1; }"), GuestSyntaxError, "first declaration"
    ),
    "an old packet load": Attempt(
        function("s->total = load_byte(r, 0);", before='u64 load_byte(void *, u64) asm("llvm.bpf.load.byte");'),
        GuestSyntaxError,
        "'asm' is not part",
    ),
    "a section of its own": Attempt(
        function("return 1;", before='__attribute__((section("maps"))) int x(void) { return 1; }'),
        GuestSyntaxError,
        "'__attribute__' is not part",
    ),
    "assembly by a macro's parts": Attempt(
        function("GLUE(as, m)(0);", before="#define GLUE(a, b) a ## b"), GuestSyntaxError, "## is not part"
    ),
    "assembly by an escaped letter": Attempt(function('\\u0061sm("exit");'), GuestSyntaxError, "."),
    "assembly over two lines": Attempt(function('as\\\nm volatile("exit");'), GuestSyntaxError, "'asm' is not part"),
    "a file of the host": Attempt(function("return 1;", before='#include "/etc/shadow"'), GuestSyntaxError, "#include"),
    "a file by a digraph": Attempt(
        function("return 1;", before="%:include </etc/shadow>"), GuestSyntaxError, "#include"
    ),
    "a file over two lines": Attempt(
        function("return 1;", before='#inc\\\nlude "/etc/shadow"'), GuestSyntaxError, "#include"
    ),
    "whether a file is there": Attempt(
        function("return 1;", before='#if __has_include("/etc/shadow")\n#endif'), GuestSyntaxError, "__has_include"
    ),
    "a file in a message": Attempt(
        function("nothing;", before='#line 1 "/etc/shadow"'), GuestSyntaxError, "#line is not part"
    ),
    "a file as data": Attempt(function("return 1;", before='#embed "/etc/shadow"'), GuestSyntaxError, "#embed"),
    "pragmas that change what follows": Attempt(
        function("return 1;", before="#pragma clang attribute pop"), GuestSyntaxError, "#pragma is not part"
    ),
    "uninitialised stack": Attempt(
        function("volatile u64 left[4]; s->total = left[r->kind & 3] + left[1];"),
        GuestSyntaxError,
        "before it is set|cannot be proved safe",
        Trust.UNTRUSTED,
    ),
    "an address of the kernel": Attempt(
        function("s->total = (u64)r ^ 1;"), GuestSyntaxError, "address|cannot be proved", Trust.UNTRUSTED
    ),
    "a stack beyond the kernel's": Attempt(
        function("volatile char big[4096]; big[r->kind & 4095] = 1; s->total = big[9];"), EngineRefused, "512 bytes"
    ),
    "an array beyond any memory": Attempt(
        function("volatile u64 big[1ull << 60]; big[0] = 1;"), GuestSyntaxError, "too large"
    ),
    "a state beyond the bound": Attempt(
        function("s->xs[0] = 1;", "u64 xs[16777216];"), GuestSyntaxError, "larger than 67108864"
    ),
    "a state of no size": Attempt(function("s->xs[0] = 1;", "u64 xs[0];"), GuestSyntaxError, "not an array size"),
    "a state beyond its memory": Attempt(
        function("s->xs[0] = 1;", "u64 xs[4194304];"), MemoryLimitExceeded, "bytes", limits={"memory_bytes": 16 * MiB}
    ),
    "a value beyond its output": Attempt(
        function("s->xs[0] = 1;", "u64 xs[65536];"), OutputLimitExceeded, "bytes", limits={"output_bytes": 4096}
    ),
    "nesting beyond the parser": Attempt(function("{" * 3000 + "}" * 3000), GuestSyntaxError, "."),
    "endless recursion": Attempt(
        function("return f(r->kind);", before="int f(u32 n) { return n * f(n + 1) + f(n * 3); }"),
        EngineRefused,
        "inlined",
    ),
    "a macro that calls itself up": Attempt(
        function("s->total = F(F(F(F(F(F(F(F(r->value))))))));", before="#define F(x) (x*x+x*x+x*x+x*x)"),
        TimeLimitExceeded,
        "not compiled within",
        limits={"timeout_s": 1.0},
    ),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_ends_in_its_one_way_and_neighbours_go_on(runtime: EbpfRuntime, ask: Ask, name: str) -> None:
    attempt = ATTEMPTS[name]

    def neighbours() -> dict[str, set[int]]:
        assert ask(GOOD, principal="neighbour").unwrap() == {"selected": 8, "state": {"total": 8}}
        kept = [kept for tier in runtime._tiers.values() for kept in tier._kept]
        return {"neighbour": {each.executor.pid for each in kept if each.principal == "neighbour"}}

    before = neighbours()
    result = ask(attempt.source, trust=attempt.trust, principal="mallory", **attempt.limits)
    assert type(result.error) is attempt.error, result.error
    assert re.search(attempt.says, result.error.what), result.error
    assert neighbours() == before
    assert ask(GOOD, principal="mallory").unwrap() == {"selected": 8, "state": {"total": 8}}


def test_what_a_compiler_says_of_hostile_text_steers_no_terminal(ask: Ask) -> None:
    error = error_of(ask, function("nothing;", before="#error \x1b[2J\x07 \x9b31m you"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", str(error) + error.details["log"])
