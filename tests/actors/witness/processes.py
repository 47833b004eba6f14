"""Processes in groups of their own: one that reads and writes when it is told to, and one that never pauses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runvisor.actors.jail.unified import unified_parent

_READER = "import os\nwhile os.read(0, 100): os.write(1, b'.')"
_SPINNER = "import os\nos.write(1, b'.')\nwhile True: os.getppid()"
_SOON_S = 20.0


@contextmanager
def reading() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process in a group of its own that waits in read(2), and the group's id."""
    with _in_own_group(_READER) as (process, identity):
        say(process, b"1")
        yield process, identity


@contextmanager
def spinning() -> Iterator[int]:
    """The id of a group whose one process makes a system call after the other."""
    with _in_own_group(_SPINNER) as (process, identity):
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        with _alone_on_a_core(process.pid):
            yield identity


@contextmanager
def _alone_on_a_core(pid: int) -> Iterator[None]:
    """Let a process have a core before all others, who have the rest; see sched(7). Where there is one, share it."""
    mine = os.sched_getaffinity(0)
    if len(mine) > 1:
        core = max(mine)
        os.sched_setaffinity(0, mine - {core})
        os.sched_setaffinity(pid, {core})
        with suppress(PermissionError):
            os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@contextmanager
def _in_own_group(code: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    parent = unified_parent()
    assert parent is not None
    group = parent / f"runvisor-{os.getpid()}-0-test"
    group.mkdir()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            yield process, group.stat().st_ino
        finally:
            process.kill()
    _remove(group)


def _remove(group: Path) -> None:
    deadline = time.monotonic() + _SOON_S
    while True:
        try:
            group.rmdir()
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        else:
            return


def say(process: subprocess.Popen[bytes], word: bytes) -> None:
    """Have the reader read, and wait until it waits in its next read(2); see proc_pid_syscall(5)."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(word)
    process.stdin.flush()
    assert os.read(process.stdout.fileno(), 1) == b"."
    deadline = time.monotonic() + _SOON_S
    while not Path(f"/proc/{process.pid}/syscall").read_text().startswith("0 "):
        assert time.monotonic() < deadline
        time.sleep(0.002)
