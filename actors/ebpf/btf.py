"""Finding functions, members of structs and tracepoints in the kernel's own type information, without libbpf.

Source: Documentation/bpf/btf.rst (the binary layout).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
_MAGIC: Final = 0xEB9F
_PTR, _STRUCT, _UNION, _TYPEDEF, _FUNC, _FUNC_PROTO = 2, 4, 5, 8, 12, 13
_RAW_TRACEPOINT: Final = b"btf_trace_"
_DEEPEST: Final = 8
_HEADER: Final = struct.Struct("<HBBIIIII")
_TYPE: Final = struct.Struct("<III")
_FIXED_BYTES: Final = {1: 4, 3: 12, 14: 4, 17: 4}
"""What follows a type of each kind once: INT, ARRAY, VAR, DECL_TAG."""
_BYTES_PER_MEMBER: Final = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}
"""And once per member: STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64."""


def function_ids(data: bytes, names: Iterable[str]) -> dict[str, int]:
    """Return the BTF ids of functions, those that exist.

    Args:
        data: The bytes of ``/sys/kernel/btf/vmlinux`` (a walk of some 50 ms).
        names: Names of functions.

    Raises:
        ValueError: The bytes are not BTF.
    """
    return _ids(data, _FUNC, {name.encode(): name for name in names})


def tracepoint_ids(data: bytes, names: Iterable[str]) -> dict[str, int]:
    """Return the BTF ids of raw tracepoints, those that exist: what a program that knows their types is loaded for.

    Args:
        data: The bytes of ``/sys/kernel/btf/vmlinux`` (a walk of some 50 ms).
        names: For example ``sys_exit``.

    Raises:
        ValueError: The bytes are not BTF.
    """
    return _ids(data, _TYPEDEF, {_RAW_TRACEPOINT + name.encode(): name for name in names})


def member_offsets(data: bytes, members: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return how many bytes from its struct's start each member lies, of those that exist.

    A member of an anonymous struct or union inside counts as the outer struct's, as in C.

    Args:
        data: The bytes of ``/sys/kernel/btf/vmlinux`` (a walk of some 100 ms).
        members: Pairs of a struct's name and a member's.

    Raises:
        ValueError: The bytes are not BTF.

    Example:
        >>> member_offsets(VMLINUX.read_bytes(), [("qstr", "name")])  # doctest: +SKIP
        {('qstr', 'name'): 8}
    """
    types, texts = _sections(data)
    wanted: dict[int, dict[str, str]] = {}
    for structure, member in members:
        at = data.find(b"\0" + structure.encode() + b"\0", texts.start, texts.stop)
        if at >= 0:
            wanted.setdefault(at + 1 - texts.start, {})[member] = structure
    places = [0]  # by type number; 0 is void
    structures: list[tuple[int, int]] = []
    for at, name_at, kind in _walk(data, types):
        places.append(at)
        if kind == _STRUCT and name_at in wanted:
            structures.append((at, name_at))
    found: dict[tuple[str, str], int] = {}
    for at, name_at in structures:
        for name, offset in _members(data, texts, places, at, 0):
            if name in wanted[name_at]:
                found.setdefault((wanted[name_at][name], name), offset)
    return found


def raw_tracepoints(data: bytes) -> dict[str, int]:
    """Return the raw tracepoints of the kernel itself, not of its modules, with how many arguments each has.

    Args:
        data: The bytes of ``/sys/kernel/btf/vmlinux`` (a walk of some 100 ms).

    Raises:
        ValueError: The bytes are not BTF.

    Example:
        >>> raw_tracepoints(VMLINUX.read_bytes())["sys_enter"]  # doctest: +SKIP
        2
    """
    types, texts = _sections(data)
    places = [0]
    named: list[tuple[str, int]] = []
    for at, name_at, kind in _walk(data, types):
        places.append(at)
        start = texts.start + name_at
        if kind == _TYPEDEF and data.startswith(_RAW_TRACEPOINT, start):
            end = data.index(b"\0", start)
            named.append((data[start + len(_RAW_TRACEPOINT) : end].decode(errors="replace"), at))
    found: dict[str, int] = {}
    for name, at in named:
        # typedef void (*btf_trace_name)(void *, ...): a pointer to a function, whose first argument is the kernel's
        for wanted in (_PTR, _FUNC_PROTO):
            number = _TYPE.unpack_from(data, at)[2]
            at = places[number] if number < len(places) else 0
            if not at or (_TYPE.unpack_from(data, at)[1] >> 24) & 31 != wanted:
                break
        else:
            found[name] = max(0, (_TYPE.unpack_from(data, at)[1] & 0xFFFF) - 1)
    return found


def _ids(data: bytes, wanted_kind: int, names: Mapping[bytes, str]) -> dict[str, int]:
    """Return the ids of types of one kind, under what the caller calls each name."""
    types, texts = _sections(data)
    wanted: dict[int, str] = {}
    for text, name in names.items():
        at = data.find(b"\0" + text + b"\0", texts.start, texts.stop)
        if at >= 0:
            wanted[at + 1 - texts.start] = name
    found: dict[str, int] = {}
    for number, (_, name_at, kind) in enumerate(_walk(data, types), 1):
        if kind == wanted_kind and name_at in wanted:
            found[wanted[name_at]] = number
            if len(found) == len(wanted):
                break
    return found


def _members(
    data: bytes, texts: range, places: list[int], at: int, base: int, depth: int = 0
) -> Iterator[tuple[str, int]]:
    """Yield the names of a struct's members, with their offsets in bytes."""
    _, info, _ = _TYPE.unpack_from(data, at)
    has_bit_fields = info >> 31
    for number in range(info & 0xFFFF):
        name_at, kind_of, bits = _TYPE.unpack_from(data, at + _TYPE.size + number * _TYPE.size)
        offset = base + (bits & 0xFFFFFF if has_bit_fields else bits) // 8
        if name_at:
            start = texts.start + name_at
            yield data[start : data.index(b"\0", start)].decode(errors="replace"), offset
        elif depth < _DEEPEST and 0 < kind_of < len(places):
            inner = places[kind_of]
            if (_TYPE.unpack_from(data, inner)[1] >> 24) & 31 in (_STRUCT, _UNION):
                yield from _members(data, texts, places, inner, offset, depth + 1)


def _sections(data: bytes) -> tuple[range, range]:
    """Return where the types and where the texts lie."""
    if len(data) < _HEADER.size:
        raise ValueError("too short for BTF")
    magic, _, _, header_bytes, types_at, types_bytes, texts_at, texts_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("not BTF of this byte order")
    types, texts = header_bytes + types_at, header_bytes + texts_at
    return range(types, types + types_bytes), range(texts, texts + texts_bytes)


def _walk(data: bytes, types: range) -> Iterator[tuple[int, int, int]]:
    """Yield each type's place, the place of its name, and its kind."""
    at = types.start
    while at + _TYPE.size <= types.stop:
        name_at, info, _ = _TYPE.unpack_from(data, at)
        kind, members = (info >> 24) & 31, info & 0xFFFF
        yield at, name_at, kind
        at += _TYPE.size + _FIXED_BYTES.get(kind, 0) + members * _BYTES_PER_MEMBER.get(kind, 0)
