"""Finding functions in the kernel's own type information, without libbpf.

Source: Documentation/bpf/btf.rst (the binary layout).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
_MAGIC: Final = 0xEB9F
_FUNC: Final = 12
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
    if len(data) < _HEADER.size:
        raise ValueError("too short for BTF")
    magic, _, _, header_bytes, types_at, types_bytes, texts_at, texts_bytes = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("not BTF of this byte order")
    texts = header_bytes + texts_at
    wanted: dict[int, str] = {}
    for name in names:
        at = data.find(b"\0" + name.encode() + b"\0", texts, texts + texts_bytes)
        if at >= 0:
            wanted[at + 1 - texts] = name
    found: dict[str, int] = {}
    at, end, number = header_bytes + types_at, header_bytes + types_at + types_bytes, 0
    while at + _TYPE.size <= end and len(found) < len(wanted):
        number += 1
        name_at, info, _ = _TYPE.unpack_from(data, at)
        kind, members = (info >> 24) & 31, info & 0xFFFF
        if kind == _FUNC and name_at in wanted:
            found[wanted[name_at]] = number
        at += _TYPE.size + _FIXED_BYTES.get(kind, 0) + members * _BYTES_PER_MEMBER.get(kind, 0)
    return found
