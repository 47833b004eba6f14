"""Processes whose behaviour is known exactly, and what the kernel says of programs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import Watch
from runvisor.policies.observations import Cell, ObservationRequest, ObservedTable

_GET_PROGRAM: Final = 13
LONG_S: Final = 60.0
"""A bound that no test waits for: the process ends before."""


@contextmanager
def known_process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start Python on a text that has ``os`` and libc, and does nothing until it is told to `go`."""
    text = f"import os, sys, threading\nsys.stdin.readline()\n{code}\n"
    command = [sys.executable, "-I", "-S", "-c", text, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert wait_until(lambda: "libc.so" in Path(f"/proc/{process.pid}/maps").read_text())
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[str]) -> None:
    """Let a known process begin."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def observe_known(runtime: EbpfRuntime, what: str, code: str, *arguments: str, follow: bool = True) -> ObservedTable:
    """Observe a known process from before it begins until it has ended."""
    with known_process(code, *arguments) as process:
        request = ObservationRequest(what, process.pid, LONG_S, follow)
        table = runtime.observe(request, Watch(lambda: go(process), cancellation=Cancellation()))
        assert process.wait(LONG_S) == 0
    assert (table.ended, table.lost, table.pid) == ("target", 0, process.pid)
    return table


def observe_events(
    runtime: EbpfRuntime, program: str, code: str, *, follow: bool = True, status: int = 0
) -> ObservedTable:
    """Observe a known process by a program, from before it begins until it has ended."""
    with known_process(code) as process:
        request = ObservationRequest("program", process.pid, LONG_S, follow, program)
        table = runtime.observe(request, Watch(lambda: go(process), cancellation=Cancellation()))
        assert process.wait(LONG_S) == status
    assert table.ended == "target"
    return table


def row_of(table: ObservedTable, **wanted: Cell) -> Mapping[str, Cell]:
    """Return the one row that has these cells."""
    (row,) = (row for row in table.to_dicts() if wanted.items() <= row.items())
    return row


def executors(of: int | None = None) -> list[int]:
    """Return the processes below one (this one by default) that keep programs attached."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    below = {of or os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return [pid for pid in below if attached_by(pid)]


def attached_by(pid: int) -> set[int]:
    """Return the ids of the programs that a process keeps attached; see proc_pid_fdinfo(5)."""
    found: set[int] = set()
    try:
        texts = [entry.read_text() for entry in Path(f"/proc/{pid}/fdinfo").iterdir()]
    except OSError:
        return found
    for text in texts:
        lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        if "link_type" in lines:
            found.add(int(lines["prog_id"]))
    return found


def is_loaded(program: int) -> bool:
    """Whether the kernel has a program of an id."""
    try:
        os.close(bpf.call(_GET_PROGRAM, bpf.attribute(struct.pack("<I", program)), "get program"))
    except FileNotFoundError:
        return False
    return True


def wait_until(holds: Callable[[], object], limit_s: float = 20.0) -> bool:
    """Ask again until it holds: the kernel frees programs a moment after the last descriptor is closed."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
