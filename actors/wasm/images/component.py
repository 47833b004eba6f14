"""Reads of a component how much memory it begins with.

Source: https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md
"""

from __future__ import annotations

from typing import Final

from runvisor.actors.wasm.images.binary import MEMORY, Reader, read_sections
from runvisor.policies.permissions import KiB

_HEADER: Final = b"\0asm\x0d\0\1\0"
_CORE_MODULE, _COMPONENT = 1, 4
_PAGE_BYTES: Final = 64 * KiB


def first_memory_bytes(component: bytes) -> int:
    r"""Return the bytes of all memories that the core modules of a component define, as they begin.

    Raises:
        ValueError: It is not a component.

    Example:
        >>> first_memory_bytes(b"\0asm\x0d\0\1\0")
        0
    """
    if component[: len(_HEADER)] != _HEADER:
        raise ValueError("not a component")
    reader = Reader(component)
    reader.take(len(_HEADER))
    total = 0
    while not reader.is_at_end:
        kind = reader.byte()
        part = reader.take(reader.number())
        if kind == _COMPONENT:
            total += first_memory_bytes(part)
        elif kind == _CORE_MODULE:
            total += _defined(part)
    return total


def _defined(module: bytes) -> int:
    total = 0
    for number, body in read_sections(module):
        if number == MEMORY:
            reader = Reader(body)
            for _ in range(reader.number()):
                total += reader.limits()[1] * _PAGE_BYTES
    return total
