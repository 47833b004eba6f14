"""The fields of a tracepoint's event, as the kernel describes them, and the C text that reads them.

A field is an integer of 1 to 8 bytes, an array, or of varying length: then a word says where in
the event its bytes are, and how many. In C it is a member of ``struct event`` under its own name,
with ``_`` behind it where ``struct event`` has a member of that name for every event.

Source: Documentation/trace/events.rst (format files), include/trace/stages/stage4_event_cb.h
(``__data_loc``), stage5_get_offsets.h (``__rel_loc``).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

MAX_ARRAY_BYTES: Final = 128
"""Of an array; what is longer is cut."""
MAX_TEXT_BYTES: Final = 96
"""Of a field of varying length: as much as a key holds."""
COMMON: Final = ("pid", "tid", "time_ns", "cpu", "comm")
"""Members that ``struct event`` has for every event."""
_LINE: Final = re.compile(
    r"\s*field:(?P<what>[^;]{1,400});\s*offset:(?P<offset>\d{1,5});\s*size:(?P<size>\d{1,5});\s*signed:(?P<signed>[01]);"
)
_DECLARATION: Final = re.compile(r"(?P<type>.*?[\s*\]])(?P<name>[A-Za-z_]\w{0,126})(?P<array>\[[^\]]*\])?", re.ASCII)
_HEADER_BYTES: Final = 8
"""What programs may not read: the kernel's own fields, in whose place lies its pointer to registers."""
_WIDTHS: Final = {
    **dict.fromkeys(("char", "s8", "u8", "__s8", "__u8", "bool", "int8_t", "uint8_t"), 1),
    **dict.fromkeys(("short", "s16", "u16", "__s16", "__u16", "__be16", "__le16"), 2),
    **dict.fromkeys(("int", "s32", "u32", "__s32", "__u32", "__be32", "__le32", "unsigned"), 4),
    **dict.fromkeys(("long", "s64", "u64", "__s64", "__u64", "__be64", "__le64"), 8),
}
"""Bytes of an array's item, by the last word of its type; of others it has bytes."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event."""

    member: str
    """Its name in ``struct event``."""
    offset: int
    """In the event; of one of varying length, of the word that says where it lies."""
    size: int
    """In bytes; of one of varying length, of that word."""
    item_bytes: int
    """Of an integer its own size."""
    is_signed: bool
    is_array: bool = False
    is_varying: bool = False
    is_relative: bool = False
    """Of varying length, and its place is counted from the end of the word, not from the event's start."""

    @property
    def room_bytes(self) -> int:
        """How many bytes its member has."""
        if self.is_varying:
            return MAX_TEXT_BYTES
        return min(self.size, MAX_ARRAY_BYTES) if self.is_array else self.size

    @property
    def declaration(self) -> str:
        """The member of ``struct event``, and that with its length if it varies."""
        kind = f"{'s' if self.is_signed else 'u'}{8 * self.item_bytes}"
        count = f"[{self.room_bytes // self.item_bytes}]" if self.is_array or self.is_varying else ""
        length = f" u32 {self.member}_bytes;" if self.is_varying else ""
        return f"{kind} {self.member}{count};{length}"

    @property
    def reading(self) -> str:
        """The statement that fills it; ``context`` points to the event, 8-byte aligned."""
        if not self.is_varying and not self.is_array:
            kind = f"{'s' if self.is_signed else 'u'}{8 * self.size}"
            return f"event.{self.member} = *({kind} *)((u8 *)context + {self.offset});"
        if not self.is_varying:
            return f"__builtin_memcpy(event.{self.member}, (u8 *)context + {self.offset}, {self.room_bytes});"
        start = f" + {self.offset + self.size}" if self.is_relative else ""
        return (
            f"{{ u32 at = *(u32 *)((u8 *)context + {self.offset}), size = at >> 16; event.{self.member}_bytes = size; "
            f"if (size > {MAX_TEXT_BYTES}) size = {MAX_TEXT_BYTES}; rv_no_copies(); "
            f"rv_read_kernel(event.{self.member}, size, (u64)context{start} + (at & 0xffff)); }}"
        )


def read_format(text: str) -> tuple[Field, ...]:
    """Return the fields of an event that a program can read.

    Args:
        text: The tracepoint's ``format`` file. What is not understood in it is left out.

    Example:
        >>> fields = read_format('''format:
        ...     field:int common_pid;	offset:4;	size:4;	signed:1;
        ...     field:char prev_comm[16];	offset:8;	size:16;	signed:0;
        ...     field:__data_loc char[] filename;	offset:24;	size:4;	signed:0;
        ...     field:pid_t pid;	offset:28;	size:4;	signed:1;''')
        >>> [field.declaration for field in fields]
        ['u8 prev_comm[16];', 'u8 filename[96]; u32 filename_bytes;', 's32 pid_;']
    """
    fields: dict[str, Field] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        field = _field(found["what"].strip(), int(found["offset"]), int(found["size"]), found["signed"] == "1")
        if field is not None:
            fields.setdefault(field.member, field)
    return tuple(fields.values())


def used_fields(fields: Collection[Field], names: Collection[str]) -> tuple[Field, ...]:
    """Return the fields that a text names: others would only fill the program's small stack.

    Args:
        fields: From `read_format`.
        names: Every name in the text.
    """
    return tuple(
        field for field in fields if field.member in names or (field.is_varying and f"{field.member}_bytes" in names)
    )


def _field(what: str, offset: int, size: int, is_signed: bool) -> Field | None:
    parts = _DECLARATION.fullmatch(what)
    if parts is None or offset < _HEADER_BYTES or not size:
        return None
    kind, name = parts["type"].strip(), parts["name"]
    member = f"{name}_" if name in COMMON else name
    if kind.startswith(("__data_loc ", "__rel_loc ")):
        item = _item_bytes(kind.partition(" ")[2].partition("[")[0]) if size == 4 else 0
        if not item:
            return None
        signed = is_signed and item > 1
        return Field(member, offset, size, item, signed, is_varying=True, is_relative=kind.startswith("__rel_loc "))
    if parts["array"] is None and size in (1, 2, 4, 8) and offset % size == 0:
        return Field(member, offset, size, size, is_signed)
    item = _item_bytes(kind) if parts["array"] is not None else 1
    item = item if offset % item == 0 and size % item == 0 else 1
    return Field(member, offset, size, item, is_signed and item > 1, is_array=True)


def _item_bytes(kind: str) -> int:
    """Return the size of an array's items, 1 if its type is not known."""
    words = kind.split()
    return 8 if kind.endswith("*") else _WIDTHS.get(words[-1], 1) if words else 1
