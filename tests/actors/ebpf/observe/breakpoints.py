"""Whether the kernel has a uprobe in a process: its breakpoint is the first byte of the function."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BREAKPOINT: Final = 0xCC
"""int3 of x86."""


def labs_of(pid: int) -> tuple[int, str, int]:
    """Return the address of labs(3) in a process, its file, and its place there; see proc_pid_maps(5)."""
    here = ctypes.cast(ctypes.CDLL("libc.so.6").labs, ctypes.c_void_p).value
    assert here is not None
    place = next(here - first + offset for first, end, offset, _ in mappings(os.getpid()) if first <= here < end)
    for first, end, offset, path in mappings(pid):
        if "libc.so.6" in path and offset <= place < offset + end - first:
            return first + place - offset, path, place
    raise AssertionError("it has no libc")


def mappings(pid: int) -> Iterator[tuple[int, int, int, str]]:
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        fields = line.split()
        first, end = (int(part, 16) for part in fields[0].split("-"))
        if fields[1][2] == "x":
            yield first, end, int(fields[2], 16), fields[-1]


def has_breakpoint(pid: int) -> bool:
    """Whether the first byte of a process's labs(3) is a breakpoint of the kernel's."""
    address, _, _ = labs_of(pid)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(1)[0] == BREAKPOINT
