"""Noise: it touches what it is to touch, and ends with its block."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.scheduler.real import noise

pytestmark = pytest.mark.root


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    """A shell that tells when its child has begun, and when it has ended."""
    script = "sh -c 'echo begun; exec tail -f /dev/null'; echo ended; exec tail -f /dev/null"
    process = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        yield process
    finally:
        for pid in noise.descendants(process.pid):
            subprocess.run(["kill", "-9", str(pid)], check=False)
        process.kill()
        process.wait()


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_what_is_slowed_is_not_left_stopped(parent: subprocess.Popen[bytes]) -> None:
    (child,) = noise.descendants(parent.pid)
    seen = set()
    with noise.slowed(parent.pid):
        while "T" not in seen:
            seen.add(state(child))
        assert state(parent.pid) != "T"
    assert state(child) != "T"


def test_what_fails_is_killed_and_what_is_above_it_is_not(parent: subprocess.Popen[bytes]) -> None:
    with noise.failing(parent.pid):
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ended\n"
    assert parent.poll() is None


def test_a_hog_ends_with_its_block() -> None:
    with noise.hog() as paused:
        paused.go()
        pid = paused.pid
        while state(pid) != "R":
            pass
    assert not Path(f"/proc/{pid}").exists()
