"""A process that reads and writes when it is told to, in a group of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runvisor.actors.jail.unified import unified_parent

_READER = "import os\nwhile os.read(0, 100): os.write(1, b'.')"
_SOON_S = 20.0


@contextmanager
def reading() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process in a group of its own that waits in read(2), and the group's id."""
    parent = unified_parent()
    assert parent is not None
    group = parent / f"runvisor-{os.getpid()}-0-test"
    group.mkdir()
    with subprocess.Popen([sys.executable, "-c", _READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            say(process, b"1")
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
