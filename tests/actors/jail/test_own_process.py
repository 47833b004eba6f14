"""A process of ours: it says when it is ready, leaves its last words, and ends with its control socket."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail.own_process import OwnProcess
from runvisor.policies.errors import SpawnFailed


@contextmanager
def started(*arguments: str) -> Iterator[tuple[OwnProcess, FrameSocket]]:
    ours, theirs = socket.socketpair()
    process = OwnProcess("json.tool", arguments, fds=[theirs.fileno()], environment={"LANG": "C.UTF-8"})
    theirs.close()
    with FrameSocket(ours) as control:
        try:
            yield process, control
        finally:
            process.end(control)
            process.end(control)


def test_one_that_fails_is_reported_with_its_last_words() -> None:
    said = r"the helper did not start: .*No such file"
    with started("/no/such/file") as (process, control), pytest.raises(SpawnFailed, match=said):
        process.wait_ready(control, "helper", "here", 20.0)
    assert process.last_words() == ""


def test_one_that_says_nothing_is_not_waited_for_without_end(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(json.dumps({}))
    with started(str(tmp_path / "empty")) as (process, control), pytest.raises(SpawnFailed, match="did not start"):
        process.wait_ready(control, "helper", "here", 20.0)


def test_one_that_does_not_end_with_its_socket_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("runvisor.actors.jail.own_process._EXIT_TIMEOUT_S", 0.05)
    os.mkfifo(tmp_path / "pipe")  # nobody writes there, so that it waits for ever
    with started(str(tmp_path / "pipe")) as (process, _):
        pidfd = os.pidfd_open(process.pid)
    with pytest.raises(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    os.close(pidfd)
