"""Noise that is made while something is measured, by means that exist outside of benchmarks too.

All of it ends with its block: nothing stays stopped, nothing goes on running. Only
processes below our own pools are touched, from a process of its own: the load's
would be too late. ``python -m benchmarks.scheduler.real.noise slow PID``
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_HOG: Final = "import os\nos.sched_setaffinity(0, {%d})\nprint(flush=True)\nwhile True: pass"
_STOPPED_S: Final = 0.020
_RUNNING_S: Final = 0.010
"""Stopped for two thirds of the time, a process takes three times as long."""
_KILLED_EVERY_S: Final = 0.010


class Hog:
    """A process that keeps one core busy while it is told to; see `hog`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def go(self) -> None:
        """Begin, or go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Pause."""
        self._process.send_signal(signal.SIGSTOP)


@contextmanager
def hog(core: int | None = None) -> Iterator[Hog]:
    """Start a process that can keep one core busy, paused for the present.

    Args:
        core: Which; None is the last one that this process may use.
    """
    core = max(os.sched_getaffinity(0)) if core is None else core
    process = subprocess.Popen([sys.executable, "-c", _HOG % core], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        paused = Hog(process)
        paused.stop()
        yield paused
    finally:
        process.kill()
        process.wait()


def descendants(root: int) -> list[int]:
    """Return the processes below one, nearest first (proc(5), ``children``)."""
    found, level = [], [root]
    while level:
        level = [child for parent in level for child in _children(parent)]
        found += level
    return found


@contextmanager
def slowed(root: int) -> Iterator[None]:
    """Stop everything below a process for two thirds of the time, in short turns."""
    try:
        with _noise("slow", root):
            yield
    finally:
        _send(descendants(root), signal.SIGCONT)


@contextmanager
def failing(root: int) -> Iterator[None]:
    """Kill everything below a process, again and again: a pool whose engine is lost."""
    with _noise("fail", root):
        yield


@contextmanager
def _noise(kind: str, root: int) -> Iterator[None]:
    command = [sys.executable, "-m", __spec__.name, kind, str(root), str(os.getpid())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3])
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _main() -> None:
    kind, root, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # what makes noise must not wait for it
    print(flush=True)
    while os.getppid() == parent:
        if kind == "fail":
            _send(descendants(root), signal.SIGKILL)
            time.sleep(_KILLED_EVERY_S)
            continue
        pids = descendants(root)
        _send(pids, signal.SIGSTOP)
        time.sleep(_STOPPED_S)
        _send(pids, signal.SIGCONT)
        time.sleep(_RUNNING_S)


if __name__ == "__main__":
    _main()
