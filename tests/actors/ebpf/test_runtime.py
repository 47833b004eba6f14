"""The runtime's promises: reset between runs, limits, isolation, principals, nothing left behind."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors.ebpf import bcc_package, bpf, btf, probe
from runvisor.actors.ebpf import runtime as runtime_module
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.policies.errors import (
    GuestSyntaxError,
    InvalidTask,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    PoolExhausted,
    SpawnFailed,
    TimeLimitExceeded,
    WorkerCrashed,
)
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.records import parse_program
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


def of_kind(command: int) -> set[int]:
    """Return the ids of all maps (12) or programs (11) in the kernel: BPF_*_GET_NEXT_ID."""
    found: set[int] = set()
    last = 0
    while True:
        attribute = ctypes.create_string_buffer(struct.pack("<III", last, 0, 0), 128)
        if bpf._syscall(bpf._BPF, command, ctypes.addressof(attribute), 128) < 0:
            return found
        (last,) = struct.unpack_from("<I", attribute, 4)
        found.add(last)


def kernel_objects() -> tuple[int, int]:
    return len(of_kind(12)), len(of_kind(11))


def wait_until(holds: Callable[[], bool], limit_s: float = 5.0) -> bool:
    """Ask again until it holds: the kernel frees maps and programs a moment later."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


@pytest.fixture
def own(runtime: EbpfRuntime, asker: Callable[[EbpfRuntime], Ask]) -> Iterator[tuple[EbpfRuntime, Ask]]:
    """A runtime that a test may break (the shared one has found out that the kernel can)."""
    mine = EbpfRuntime(PoolSize(minimum=1, maximum=2, wait_s=0.3))
    try:
        mine.start()
        yield mine, asker(mine)
    finally:
        mine.close()


def pids(runtime: EbpfRuntime, principal: str = "alice") -> list[int]:
    return [kept.executor.pid for kept in runtime._tiers["bpf+perfmon"]._kept if kept.principal == principal]


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
def test_the_deadline_ends_a_run_between_two_chunks_and_the_executor_lives(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(SLOW, np.ones(1, EVENT)).unwrap()
    before = pids(runtime)
    began = time.monotonic()
    result = ask(SLOW, np.ones(2_000_000, EVENT), timeout_s=0.2)
    assert isinstance(result.error, TimeLimitExceeded)
    assert time.monotonic() - began < 1.0
    assert pids(runtime) == before


@pytest.mark.kernel
def test_an_executor_that_stays_silent_is_killed_at_the_deadline(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    (pid,) = pids(runtime)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    assert isinstance(ask(GOOD, timeout_s=0.1).error, TimeLimitExceeded)
    assert time.monotonic() - began < 2.0
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert ask(GOOD, np.ones(3, EVENT)).unwrap()["state"] == {"total": 3}


@pytest.mark.kernel
def test_records_beyond_the_memory_limit_are_refused_before_anything_starts(runtime: EbpfRuntime) -> None:
    started: list[bool] = []
    grant = Grant("alice", Trust.VERIFIED, Permissions(memory_bytes=16_000))
    for count, fits in ((999, True), (1001, False)):
        task = Task(GOOD, "c-record", {"records": np.zeros(count, EVENT)})
        started.clear()
        result = runtime.execute(task, "record", grant, lambda: started.append(True))
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
    result = runtime.execute(task, "record", GRANT, lambda: pytest.fail("it started"))
    assert isinstance(result.error, OutputLimitExceeded)


@pytest.mark.kernel
def test_an_executor_out_of_memory_is_the_tasks_error_and_is_replaced(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    (kept,) = runtime._tiers["bpf+perfmon"]._kept
    kept.executor._child.limit_memory(0)
    source = function("s->xs[r->id & 1023] = 1;", "u64 xs[4194304];")
    assert isinstance(ask(source, output_bytes=64 * MiB).error, MemoryLimitExceeded | GuestSyntaxError)
    assert ask(GOOD).ok


@pytest.mark.kernel
def test_words_for_an_executor_that_ran_out_of_memory(runtime: EbpfRuntime) -> None:
    program = parse_program(GOOD, EVENT)
    with pytest.raises(GuestSyntaxError, match="too many paths"):
        runtime_module._value({"op": "out of memory", "loading": True}, program, GRANT)
    with pytest.raises(MemoryLimitExceeded):
        runtime_module._value({"op": "out of memory", "loading": False}, program, GRANT)


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
        runtime.execute(task, "record", GRANT, lambda calls=calls: calls.append(True)).unwrap()
        assert calls == [True]


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
    assert runtime.execute(task, "record", grant, lambda: None).isolation.narrowed == grant.narrowed


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
        runtime.execute(Task(source, language, inputs), variant, GRANT, lambda: None)


@pytest.mark.kernel
def test_a_wrong_program_is_the_guests_error_and_not_an_exception(ask: Ask) -> None:
    assert isinstance(ask("int on_record(").error, GuestSyntaxError)
    assert isinstance(ask("nothing at all").error, GuestSyntaxError)


# Processes


def capabilities(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("CapEff")]
    return int(line.split()[1], 16)


@pytest.mark.kernel
def test_executors_hold_the_capabilities_of_their_tier_and_no_other(runtime: EbpfRuntime, ask: Ask) -> None:
    for trust, tier, mask in (
        (Trust.VERIFIED, "bpf+perfmon", 1 << 39 | 1 << 38),
        (Trust.UNTRUSTED, "bpf", 1 << 39),
    ):
        ask(GOOD, trust=trust).unwrap()
        for kept in runtime._tiers[tier]._kept:  # type: ignore[index]
            assert capabilities(kept.executor.pid) == mask
            status = Path(f"/proc/{kept.executor.pid}/status").read_text()
            assert "Seccomp:\t2" in status
            assert "NoNewPrivs:\t1" in status
            assert "Uid:\t0" not in status


@pytest.mark.kernel
def test_no_executor_serves_two_principals(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    served: dict[int, set[str]] = {}
    for principal in ("alice", "bob", "carol", "alice", "bob", "dave"):
        ask(GOOD, principal=principal).unwrap()
        for kept in runtime._tiers["bpf+perfmon"]._kept:
            served.setdefault(kept.executor.pid, set()).add(kept.principal)
    assert all(len(principals) == 1 for principals in served.values())
    assert len(served) >= 4, "two at most live at once, so some have ended for others"


@pytest.mark.kernel
def test_a_busy_pool_says_so(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    tier = runtime._tiers["bpf+perfmon"]
    with tier.lend("alice"), tier.lend("bob"):
        assert runtime.load().busy == 2
        with pytest.raises(PoolExhausted) as caught:
            ask(GOOD, principal="carol")
        assert caught.value.details["retry_after_s"] > 0
    assert ask(GOOD, principal="carol").ok
    assert runtime.load().busy == 0


@pytest.mark.kernel
def test_an_executor_that_died_while_idle_is_replaced_unseen(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    (pid,) = pids(runtime)
    pidfd = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [])
    os.close(pidfd)
    assert ask(GOOD, np.ones(2, EVENT)).unwrap()["state"] == {"total": 2}


@pytest.mark.kernel
def test_an_executor_that_dies_in_a_task_is_a_crash_that_had_started(own: tuple[EbpfRuntime, Ask]) -> None:
    runtime, ask = own
    ask(GOOD).unwrap()
    task = Task(GOOD, "c-record", {"records": np.zeros(2, EVENT)})
    with pytest.raises(WorkerCrashed) as caught:
        runtime.execute(task, "record", GRANT, lambda: os.kill(pids(runtime)[0], signal.SIGKILL))
    assert caught.value.details == {"started": True}
    assert ask(GOOD).ok


@pytest.mark.kernel
def test_executions_leave_no_map_and_no_program_beyond_the_loaded_ones(own: tuple[EbpfRuntime, Ask]) -> None:
    ask = own[1]
    ask(GOOD).unwrap()
    maps, programs = kernel_objects()
    for number in range(8):
        ask(GOOD, np.ones(number * 1000, EVENT)).unwrap()
        assert not ask(function("s->total = r[1].value;")).ok
    assert wait_until(lambda: kernel_objects() == (maps, programs)), (kernel_objects(), maps, programs)


@pytest.mark.kernel
def test_an_executor_keeps_a_bounded_number_of_programs(own: tuple[EbpfRuntime, Ask]) -> None:
    ask = own[1]
    programs = kernel_objects()[1]
    descriptors = []
    for part in range(2):
        for number in range(34):
            ask(function(f"s->total += {part * 100 + number};")).unwrap()
        descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
    assert wait_until(lambda: kernel_objects()[1] <= programs + 32)
    assert descriptors[1] <= descriptors[0] + 2


@pytest.mark.kernel
def test_closing_leaves_no_process_and_nothing_in_the_kernel(
    runtime: EbpfRuntime, asker: Callable[[EbpfRuntime], Ask]
) -> None:
    before = kernel_objects()
    mine = EbpfRuntime(PoolSize(minimum=1, maximum=2))
    mine.start()
    ask = asker(mine)
    ask(GOOD).unwrap()
    ask(GOOD, trust=Trust.UNTRUSTED).unwrap()
    alive = pids(mine)
    mine.close()
    mine.close()
    assert all(wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists()) for pid in alive)
    assert wait_until(lambda: kernel_objects() == before)
    with pytest.raises(SpawnFailed):
        ask(GOOD)


# The probe


@pytest.mark.kernel
def test_the_probe_is_quick_and_says_what_it_found(runtime: EbpfRuntime) -> None:
    began = time.monotonic()
    found = runtime.probe()
    assert time.monotonic() - began < 0.5
    assert found.available
    assert "bcc" in found.detail
    assert "\n" not in found.detail


@pytest.mark.kernel
def test_the_probe_names_what_is_missing_and_how_to_get_it(
    runtime: EbpfRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(bcc_package, "folder", lambda: None)
        assert "apt-get install" in probe.probe_ebpf().remedy
        with pytest.raises(SpawnFailed, match="bcc"):
            EbpfRuntime().start()

    def refused(*_: Any) -> int:
        raise OSError(errno.EPERM, "bpf map create")

    with monkeypatch.context() as patched:
        patched.setattr(bpf, "create_array", refused)
        assert "CAP_BPF" in probe.probe_ebpf().remedy
    with monkeypatch.context() as patched:
        patched.setattr(probe, "has_may_goto", lambda: False)
        assert "bpf_iter_num" in probe.probe_ebpf().detail or not btf.VMLINUX.exists()
        patched.setattr(btf, "VMLINUX", tmp_path / "nothing")
        assert "CONFIG_DEBUG_INFO_BTF" in probe.probe_ebpf().remedy
        (tmp_path / "nothing").write_bytes(b"an old kernel")
        assert not probe.probe_ebpf().available


def test_pypis_package_of_the_same_name_is_not_taken_for_the_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc" / "__init__.py").write_text("lattice = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(bcc_package, "_DEBIAN_FOLDER", str(tmp_path / "none"))
    assert bcc_package.folder() is None
    (tmp_path / "bcc" / "libbcc.py").write_text("")
    assert bcc_package.folder() == tmp_path / "bcc"
