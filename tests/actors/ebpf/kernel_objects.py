"""What of ours lives in the kernel: maps, programs and links, by id (bpf(2), BPF_*_GET_NEXT_ID)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from runvisor.actors.ebpf import bpf

_NEXT = {"prog": 11, "map": 12, "link": 31}
_FD_BY_ID = {"prog": 13, "map": 14, "link": 30}
_INFO = 15
_NAME_AT = {"prog": 64, "map": 24}
_INFO_BYTES = 80
_OURS = (b"rv_", b"runvisor")

Object = tuple[str, int]


def ours() -> set[Object]:
    """Return every map and program with a name of ours, whoever has it, and every link to such a program."""
    found = {(kind, number) for kind in ("prog", "map") for number in _ids(kind) if _name(kind, number)}
    links = {("link", number) for number in _ids("link") if ("prog", _word("link", number, 8)) in found}
    return found | links


def held_by_others(pids: set[int]) -> set[Object]:
    """Return what processes hold other than these and their descendants: the suite may not be alone here."""
    held: set[Object] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        if not _descends(int(folder.name), pids):
            held |= held_by(int(folder.name))
    return held


def held_by(pid: int) -> set[Object]:
    """Return the maps and programs that a process has descriptors of."""
    held: set[Object] = set()
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                for line in path.read_text().splitlines():
                    name, _, value = line.partition(":")
                    if name in ("map_id", "prog_id"):
                        held.add((name.removesuffix("_id"), int(value)))
    return held


def descendants(pid: int) -> set[int]:
    """Return a process and all that come from it."""
    numbers = [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]
    return {number for number in numbers if _descends(number, {pid})}


def _descends(pid: int, ancestors: set[int]) -> bool:
    while pid > 1:
        if pid in ancestors:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def _ids(kind: str) -> Iterator[int]:
    number = 0
    while True:
        attribute = bpf.attribute(struct.pack("<I", number))
        try:
            bpf.call(_NEXT[kind], attribute, "next id")
        except FileNotFoundError:
            return
        (number,) = struct.unpack_from("<I", attribute, 4)
        yield number


def _info(kind: str, number: int) -> bytes:
    """Return what the kernel says of an object; nothing if it has just gone."""
    try:
        fd = bpf.call(_FD_BY_ID[kind], bpf.attribute(struct.pack("<I", number)), "by id")
    except FileNotFoundError:
        return bytes(_INFO_BYTES)
    info = ctypes.create_string_buffer(_INFO_BYTES)
    try:
        bpf.call(_INFO, bpf.attribute(struct.pack("<IIQ", fd, _INFO_BYTES, ctypes.addressof(info))), "info")
    finally:
        os.close(fd)
    return info.raw


def _name(kind: str, number: int) -> bool:
    at = _NAME_AT[kind]
    return _info(kind, number)[at : at + 16].startswith(_OURS)


def _word(kind: str, number: int, at: int) -> int:
    (word,) = struct.unpack_from("<I", _info(kind, number), at)
    return int(word)
