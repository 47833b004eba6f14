"""What the runtime promises of each execution: reset before it, limits around it, the truth after it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf import probe
from runvisor.actors.ebpf import runtime as runtime_module
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import Watch
from runvisor.policies.errors import (
    Cancelled,
    EngineRefused,
    GuestSyntaxError,
    InvalidTask,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

EVENT = np.dtype([("id", "<u4"), ("kind", "<u4"), ("value", "<u8")])
Ask = Callable[..., Result]
GRANT = Grant("alice", Trust.VERIFIED, Permissions())


def function(body: str, state: str = "u64 total;") -> str:
    return f"struct state {{ {state} }};\nint on_record(struct record *r, struct state *s)\n{{\n{body}\nreturn 0;\n}}\n"


GOOD = function("s->total += r->value; return 1;")
SLOW = function("#pragma unroll\nfor (int i = 0; i < 2000; i++) s->total = (s->total ^ i) * 31 + r->value;")


# Reset


@pytest.mark.kernel
@pytest.mark.parametrize("trust", [Trust.UNTRUSTED, Trust.VERIFIED])
def test_each_execution_starts_with_an_untouched_state(ask: Ask, trust: Trust) -> None:
    source = function(
        "s->runs += s->marks[r->id & 63] != 0; s->marks[r->id & 63] = ~0ull; return 1;", "u64 runs; u64 marks[64];"
    )
    records = np.zeros(64, EVENT)
    records["id"] = np.arange(64)
    for kind in ("cold", "warm", "warm"):
        result = ask(source, records, trust=trust, principal="resetting")
        assert result.unwrap()["state"] == {"runs": 0, "marks": [M64] * 64}
        assert result.usage.start_kind == kind


M64 = 2**64 - 1


@pytest.mark.kernel
def test_a_state_set_by_one_execution_is_not_seen_by_the_next(ask: Ask) -> None:
    first = ask(GOOD, np.ones(4, EVENT), state={"total": 1000}).unwrap()
    second = ask(GOOD, np.ones(4, EVENT)).unwrap()
    assert (first["state"]["total"], second["state"]["total"]) == (1004, 4)


@pytest.mark.kernel
def test_a_state_without_fields_is_reset_too(ask: Ask) -> None:
    # The pointer leads to an undeclared struct; a cast reaches the byte that the map has all the same.
    source = "int on_record(struct record *r, struct state *s)\n{ u8 *p = (u8 *)s; return (*p)++ > 0; }"
    assert [ask(source, np.zeros(3, EVENT)).unwrap()["selected"] for _ in range(3)] == [2, 2, 2]


@pytest.mark.kernel
def test_each_execution_sees_its_own_records_only(ask: Ask) -> None:
    source = function("s->total |= r->value; r->value = ~0ull; return 1;")
    long, short = np.full(5000, 2, EVENT), np.full(7, 5, EVENT)
    for records, expected in ((long, 2), (short, 5), (long, 2), (short, 5)):
        assert ask(source, records).unwrap() == {"selected": len(records), "state": {"total": expected}}


@pytest.mark.kernel
def test_an_execution_that_was_cut_off_leaves_nothing(ask: Ask) -> None:
    warm = ask(SLOW, np.ones(10, EVENT)).unwrap()
    late = ask(SLOW, np.full(200_000, 3, EVENT), timeout_s=0.05)
    assert isinstance(late.error, TimeLimitExceeded)
    assert ask(SLOW, np.ones(10, EVENT)).unwrap() == warm


# Limits


@pytest.mark.kernel
def test_records_beyond_the_memory_limit_are_refused_before_anything_starts(runtime: EbpfRuntime) -> None:
    started: list[bool] = []
    grant = Grant("alice", Trust.VERIFIED, Permissions(memory_bytes=16_000))
    for count, fits in ((999, True), (1001, False)):
        task = Task(GOOD, "c-record", {"records": np.zeros(count, EVENT)})
        started.clear()
        result = runtime.execute(task, "record", grant, Watch(lambda: started.append(True)))
        assert result.ok is fits
        assert len(started) == fits
    assert isinstance(result.error, MemoryLimitExceeded)


@pytest.mark.kernel
def test_a_large_state_counts_against_the_memory_limit_too(ask: Ask) -> None:
    source = function("s->xs[r->id & 1023] = 1;", "u64 xs[1024];")
    assert isinstance(ask(source, memory_bytes=8000).error, MemoryLimitExceeded)
    assert ask(source, memory_bytes=9000).ok


@pytest.mark.kernel
def test_a_value_beyond_the_output_limit_is_refused(ask: Ask) -> None:
    source = function("s->xs[r->id & 1023] = ~0ull;", "u64 xs[1024];")
    assert isinstance(ask(source, output_bytes=500).error, OutputLimitExceeded)
    assert ask(source, output_bytes=3000).ok, "zeros take a byte each"


@pytest.mark.kernel
def test_a_value_that_cannot_fit_is_refused_before_anything_starts(runtime: EbpfRuntime) -> None:
    task = Task(function("s->xs[0] = 1;", "u8 xs[2000000];"), "c-record", {"records": np.zeros(2, EVENT)})
    result = runtime.execute(task, "record", GRANT, Watch(lambda: pytest.fail("it started")))
    assert isinstance(result.error, OutputLimitExceeded)


def test_words_for_an_executor_that_ran_out_of_memory() -> None:
    verifying = runtime_module._failure({"op": "out of memory", "loading": True}, GRANT)
    assert isinstance(verifying, GuestSyntaxError)
    assert "too many paths" in verifying.what
    running = runtime_module._failure({"op": "out of memory", "loading": False}, GRANT)
    assert isinstance(running, MemoryLimitExceeded)


@pytest.mark.kernel
def test_compiling_counts_against_the_deadline(ask: Ask) -> None:
    result = ask(function("s->total += 987654321;"), timeout_s=0.005)
    assert isinstance(result.error, TimeLimitExceeded)


# What comes back


@pytest.mark.kernel
def test_on_started_is_called_once_cold_and_warm(runtime: EbpfRuntime) -> None:
    source = function("s->total += 31337;")
    for _ in range(2):
        calls: list[bool] = []
        task = Task(source, "c-record", {"records": np.zeros(2, EVENT)})
        runtime.execute(task, "record", GRANT, Watch(lambda calls=calls: calls.append(True))).unwrap()
        assert calls == [True]


@pytest.mark.kernel
def test_a_cancelled_task_is_said_to_be_before_it_starts_and_after(runtime: EbpfRuntime) -> None:
    task = Task(GOOD, "c-record", {"records": np.zeros(2, EVENT)})
    for early in (True, False):
        cancellation = Cancellation()
        started: list[bool] = []

        def start(started: list[bool] = started, cancellation: Cancellation = cancellation) -> None:
            started.append(True)
            cancellation.cancel()

        if early:
            cancellation.cancel()
        result = runtime.execute(task, "record", GRANT, Watch(start, cancellation=cancellation))
        assert isinstance(result.error, Cancelled)
        assert bool(started) is not early


@pytest.mark.kernel
def test_usage_tells_what_was_measured(ask: Ask) -> None:
    result = ask(GOOD, np.zeros(1000, EVENT))
    usage = result.usage
    assert 0 < usage.wall_s < 5
    assert usage.cpu_s is not None
    assert 0 < usage.cpu_s < 1
    assert usage.bytes_in == len(GOOD) + 16_000
    assert usage.bytes_out == 12
    assert (result.runtime, result.variant, result.language) == ("ebpf", "record", "c-record")
    assert Result.from_wire(result.to_wire()) == result


@pytest.mark.kernel
def test_isolation_says_what_is_in_force_and_what_is_off(ask: Ask) -> None:
    verified = ask(GOOD, trust=Trust.VERIFIED).isolation
    untrusted = ask(GOOD, trust=Trust.UNTRUSTED).isolation
    assert verified.engine == untrusted.engine == "kernel"
    assert verified.accel == ("jit" if probe.jit_is_on() else "")
    assert {"spectre_v1", "spectre_v4"} <= set(verified.hardening_off)
    assert untrusted.hardening_off == (("spectre_v1", "spectre_v4") if probe.mitigations_are_off() else ())
    assert any("CAP_BPF and CAP_PERFMON" in layer for layer in verified.layers)
    assert any(layer.endswith("only CAP_BPF") for layer in untrusted.layers)
    assert not any("no capabilities" in layer for layer in verified.layers + untrusted.layers)


@pytest.mark.kernel
def test_a_program_that_stayed_loaded_is_said_to_be_shared_with_its_earlier_runs(ask: Ask) -> None:
    source = function("s->total += 424242;")
    first, second = ask(source, principal="sharer"), ask(source, principal="sharer")
    assert first.isolation.shared_with == ()
    assert "sharer" in second.isolation.shared_with[0]


@pytest.mark.kernel
def test_what_was_narrowed_is_in_the_result(runtime: EbpfRuntime) -> None:
    grant = Grant("alice", Trust.VERIFIED, Permissions(), ("timeout_s: 9999 is more than 600.0",))
    task = Task(GOOD, "c-record", {"records": np.zeros(2, EVENT)})
    assert runtime.execute(task, "record", grant, Watch()).isolation.narrowed == grant.narrowed


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("source", "language", "variant", "inputs"),
    [
        (GOOD, "python", "record", {"records": np.zeros(2, EVENT)}),
        (GOOD, "c-record", "raw", {"records": np.zeros(2, EVENT)}),
        (GOOD, "c-record", "record", None),
        (GOOD, "c-record", "record", {"records": [1, 2]}),
        (GOOD, "c-record", "record", {"records": np.zeros(2, EVENT), "state": {"nothing": 1}}),
        ("struct record { u64 id; };" + GOOD, "c-record", "record", {"records": np.zeros(2, EVENT)}),
        (GOOD, "c-record", "record", {"records": np.zeros(2, ">u4")}),
    ],
)
def test_a_task_that_does_not_fit_is_refused(
    runtime: EbpfRuntime, source: str, language: str, variant: str, inputs: Any
) -> None:
    with pytest.raises(InvalidTask):
        runtime.execute(Task(source, language, inputs), variant, GRANT, Watch())


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("for (u64 i = 0; i < r->value; i++) s->total += i * s->total;", "a loop"),
        ("s->total = (s64)r->value / (s64)r->id;", "signed division"),
        ("u32 t[5] = {7, 6, 0, 4, 3}; s->total += t[r->kind % 5];", "data outside"),
    ],
)
def test_what_only_the_kernel_cannot_take_is_refused_before_it_starts_and_at_once_the_next_time(
    runtime: EbpfRuntime, body: str, says: str
) -> None:
    unheard_of = f"// {secrets.token_hex(8)}\n"  # by any cache
    task = Task(unheard_of + function(body), "c-record", {"records": np.zeros(2, EVENT)})
    started: list[bool] = []
    for kind in ("cold", "warm"):
        result = runtime.execute(task, "record", GRANT, Watch(lambda: started.append(True)))
        assert isinstance(result.error, EngineRefused)
        assert re.search(says, result.error.what)
        assert result.usage.start_kind == kind, "the second time nothing is compiled"
    assert not started


@pytest.mark.kernel
def test_how_long_a_program_may_be_goes_by_trust(ask: Ask) -> None:
    long = SLOW.replace("2000", "1600")
    refused = ask(long, trust=Trust.UNTRUSTED, timeout_s=60.0).error
    assert isinstance(refused, EngineRefused)
    assert "more than 4096" in refused.what
    assert ask(long, trust=Trust.VERIFIED, timeout_s=60.0).ok


@pytest.mark.kernel
@pytest.mark.parametrize("body", ["s->total = r[1].value;", "s->total = *(u64 *)r->value;", "s->nothing = 1;"])
def test_what_is_wrong_anywhere_is_no_matter_of_the_engine(runtime: EbpfRuntime, body: str) -> None:
    started: list[bool] = []
    task = Task(function(body), "c-record", {"records": np.zeros(2, EVENT)})
    result = runtime.execute(task, "record", GRANT, Watch(lambda: started.append(True)))
    assert type(result.error) is GuestSyntaxError
    assert not started


@pytest.mark.kernel
def test_a_program_starts_once_however_many_parts_its_records_take(runtime: EbpfRuntime) -> None:
    started: list[bool] = []
    task = Task(GOOD, "c-record", {"records": np.zeros(1_000_000, EVENT)})
    runtime.execute(task, "record", GRANT, Watch(lambda: started.append(True))).unwrap()
    assert started == [True]


@pytest.mark.kernel
def test_a_wrong_program_is_the_guests_error_and_not_an_exception(ask: Ask) -> None:
    assert isinstance(ask("int on_record(").error, GuestSyntaxError)
    assert isinstance(ask("nothing at all").error, GuestSyntaxError)
