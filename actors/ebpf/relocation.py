"""Putting descriptors of maps and ids of kernel functions where compiled instructions name them by number.

Source: RFC 9669, section 5.4 (64-bit immediates); BPF_PSEUDO_MAP_FD and
BPF_PSEUDO_KFUNC_CALL in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

_INSTRUCTION: Final = struct.Struct("<BBhi")
_LD_IMM64, _CALL, _PSEUDO_MAP_FD, _PSEUDO_KFUNC = 0x18, 0x85, 1, 2


def relocate(code: bytes, maps: Mapping[int, int], kernel_functions: Mapping[int, int] | None = None) -> bytes:
    """Return instructions that the kernel can load.

    Args:
        code: Instructions as compiled, whose text names maps by ``rv_map(1, index)``.
        maps: Descriptors by index.
        kernel_functions: BTF ids by the numbers that stand for them in calls.

    Raises:
        KeyError: The code names a map that is not there.

    Example:
        >>> load_map_1 = bytes.fromhex("1812000001000000" "0000000000000000")
        >>> relocate(load_map_1, {1: 37}).hex(" ", 8)
        '1812000025000000 0000000000000000'
    """
    functions = kernel_functions or {}
    patched = bytearray(code)
    at = 0
    while at < len(patched):
        opcode, registers, offset, immediate = _INSTRUCTION.unpack_from(patched, at)
        if opcode == _LD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
            struct.pack_into("<i", patched, at + 4, maps[immediate])
        elif opcode == _CALL and registers >> 4 == 0 and immediate in functions:
            registers = (_PSEUDO_KFUNC << 4) | (registers & 15)
            _INSTRUCTION.pack_into(patched, at, opcode, registers, offset, functions[immediate])
        at += 16 if opcode == _LD_IMM64 else 8
    return bytes(patched)
