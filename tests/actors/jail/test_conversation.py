"""Exchanges with a child that may do anything: what the host hears, holds and waits for."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors.channel.sealed import SealedInputs, seal
from runvisor.actors.jail.outcome import MAX_ARTIFACT_BYTES, MAX_ARTIFACTS
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.runtime import Cell, Watch
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack
from tests.actors.executing import Heard
from tests.standing import needs_memory_cgroup

pytestmark = pytest.mark.root


def run(partner: JailedRuntime, code: str, heard: Heard | None = None, inputs: Any = None, **limits: Any) -> Result:
    permissions = Permissions(**limits)
    task = Task(code, "python", inputs, permissions)
    return partner.execute(task, "native", Grant("tester", Trust.UNTRUSTED, permissions), (heard or Heard()).watch)


def test_output_is_heard_as_it_comes_and_is_what_the_result_holds(partner: JailedRuntime) -> None:
    heard = Heard()
    result = run(partner, "os.write(1, b'one'); os.write(2, b'two'); os.write(1, b'three'); value = 4", heard)
    assert (result.value, heard.starts) == (4, 1)
    assert (heard.text(1), heard.text(2)) == (result.stdout, result.stderr) == ("onethree", "two")


def test_a_cancelled_task_ends_at_once_and_keeps_what_it_had_printed(partner: JailedRuntime) -> None:
    heard = Heard(cancel_at="ready")
    began = time.monotonic()
    result = run(partner, "print('ready')\nwhile True: pass", heard, timeout_s=60.0)
    assert isinstance(result.error, errors.Cancelled)
    assert result.stdout == "ready\n"
    assert time.monotonic() - began < 20


def test_a_task_that_was_cancelled_before_does_not_start(partner: JailedRuntime) -> None:
    heard = Heard()
    heard.watch.cancellation.cancel()
    with pytest.raises(errors.Cancelled):
        run(partner, "import time; time.sleep(60)", heard, timeout_s=60.0)
    assert heard.starts == 0


def test_a_listener_that_raises_ends_the_execution_and_the_next_one_runs(partner: JailedRuntime) -> None:
    heard = Heard(fail_at="ready")
    with pytest.raises(ZeroDivisionError):
        run(partner, "print('ready')\nwhile True: pass", heard, timeout_s=60.0)
    assert run(partner, "value = 1").value == 1


def test_output_beyond_the_cap_is_heard_no_more_than_kept(partner: JailedRuntime) -> None:
    heard = Heard()
    result = run(partner, "while True: os.write(1, bytes(5000))", heard, output_bytes=100_000)
    assert isinstance(result.error, errors.OutputLimitExceeded)
    assert len(result.stdout) == len(heard.text(1)) == 100_000


def test_a_guest_that_never_reads_cannot_hold_the_host_beyond_its_deadline(partner: JailedRuntime) -> None:
    session = partner.open_session(Task("-", "python"), "native", Grant("tester", Trust.UNTRUSTED, Permissions()))
    try:
        # It answers by itself, and reads no more.
        deaf = "import threading\nchannel.send({'op': 'value', 'value': b'\\xc0'})\nthreading.Event().wait()"
        assert session.run(Cell(deaf, Packed(pack(None))), Watch()).ok
        result = session.run(Cell("1", Packed(pack(bytes(8 * MiB))), "", 0.3), Watch())
        assert isinstance(result.error, errors.TimeLimitExceeded)
    finally:
        session.close()


def test_artifacts_come_with_the_result_up_to_their_caps(partner: JailedRuntime) -> None:
    result = run(partner, "artifacts = [['plot', 'image/png', b'png'], ['t', 'text/html', b'<p>']]; value = 1")
    assert [(a.name, a.mime, a.data) for a in result.artifacts] == [
        ("plot", "image/png", b"png"),
        ("t", "text/html", b"<p>"),
    ]
    many = run(partner, "artifacts = [['x', 'y', b'z']] * 100")
    assert len(many.artifacts) == MAX_ARTIFACTS
    large = run(partner, f"artifacts = [['x', 'y', bytes({MAX_ARTIFACT_BYTES * 2 // 3})]] * 2")
    assert len(large.artifacts) == 1


@pytest.mark.parametrize("said", ["7", "[7]", "[['a']]", "[['a', 'b', 'c']]", "[[1, 2, b'']]", "{'a': 1}"])
def test_malformed_artifacts_are_left_out(partner: JailedRuntime, said: str) -> None:
    result = run(partner, f"artifacts = {said}; value = 1")
    assert (result.value, result.artifacts) == (1, ())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_executions_leave_no_descriptor_and_no_thread(partner: JailedRuntime) -> None:
    run(partner, "value = 1")
    threads, most = threading.active_count(), descriptors() + 8 * 4  # a child has four
    for number in range(20):
        run(partner, "print('x')", Heard(cancel_at="x" if number % 2 else None))
    deadline = time.monotonic() + 10
    while descriptors() > most and time.monotonic() < deadline:
        threading.Event().wait(0.01)  # children are destroyed and made in the background
    assert descriptors() <= most
    assert threading.active_count() <= threads


def sealed(value: Any) -> SealedInputs:
    buffers: list[Any] = []
    data = pack(value, buffers)
    return SealedInputs(data, seal(buffers))


def test_large_inputs_reach_the_guest_without_their_bytes_crossing_the_channel(partner: JailedRuntime) -> None:
    with sealed({"blob": b"x" * MiB, "n": 2}) as inputs:
        result = run(partner, "value = [len(inputs['blob']), inputs['n'], first['shared']]", inputs=inputs)
    assert result.value == [MiB, 2, [["input-0", MiB]]]


@needs_memory_cgroup
def test_a_guest_can_map_more_than_its_memory_limit_but_not_allocate_it(partner: JailedRuntime) -> None:
    with sealed({"table": np.ones(16 * MiB)}) as inputs:  # 128 MiB
        read = run(partner, "value = sum(memoryview(inputs['table'])[::4096])", inputs=inputs, memory_bytes=64 * MiB)
        assert read.unwrap() == 4096
        assert read.usage.peak_memory_bytes is not None
        assert read.usage.peak_memory_bytes < 64 * MiB, "pages belong to who wrote them"
        hog = run(partner, "hog = bytearray(inputs['table'])", inputs=inputs, memory_bytes=64 * MiB)
        assert isinstance(hog.error, errors.MemoryLimitExceeded)


def test_a_guest_cannot_change_what_others_read(partner: JailedRuntime) -> None:
    attack = (
        "import fcntl, mmap\nvalue = []\n"
        "for number in map(int, os.listdir('/proc/self/fd')):\n"
        "    if number < 4: continue\n"
        "    for name, change in (('pwrite', lambda: os.pwrite(number, b'X', 0)),\n"
        "                         ('ftruncate', lambda: os.ftruncate(number, 0)),\n"
        "                         ('write', lambda: os.write(os.open(f'/proc/self/fd/{number}', os.O_RDWR), b'X')),\n"
        "                         ('setxattr', lambda: os.setxattr(number, 'user.word', b'X')),\n"
        "                         ('fchmod', lambda: os.fchmod(number, 0o777))):\n"
        "        try: change(); value.append(name)\n"
        "        except OSError as error: value.append(type(error).__name__)\n"
    )
    with sealed({"blob": b"x" * MiB}) as inputs:
        result = run(partner, attack, inputs=inputs)
        # Where all are the same user, the mode of what is shared can be changed; its content is sealed all the same.
        changed = set() if "own uid" in result.isolation.layers else {"fchmod"}
        assert {name for name in result.unwrap() if not name.endswith("Error")} == changed
        assert inputs.value()["blob"] == b"x" * MiB
