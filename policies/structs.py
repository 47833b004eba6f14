"""C structs of integers: their text, their layout, and the same layout for numpy and bytes.

A deliberately small part of C. It reads what the record language allows in
``struct record`` and ``struct state`` and refuses everything else with a place;
the compiler later checks by static assertions that it saw the same layout.

Sources: C11 6.7.2.1 (structures), System V ABI "Aggregates and Unions" (natural
alignment; the x86-64, AArch64, BPF and wasm32 ABIs agree for fixed-width integers).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from runvisor.policies.ctokens import Token, parse_integer, place
from runvisor.policies.errors import GuestSyntaxError

MAX_ELEMENTS: Final = 1 << 24
"""Most elements of one array member."""

_WIDTHS: Final = (8, 16, 32, 64)
TYPES: Final[Mapping[str, str]] = {
    spelling: f"{sign}{width}"
    for sign, c99 in (("u", "uint"), ("s", "int"))
    for width in _WIDTHS
    for spelling in (f"{sign}{width}", f"__{sign}{width}", f"{c99}{width}_t")
}
"""Each accepted spelling of an integer type with its canonical one."""

TYPEDEFS: Final = "".join(
    f"typedef {'un' if sign == 'u' else ''}signed {word} {sign}{width}, __{sign}{width}, {c99}{width}_t;\n"
    for sign, c99 in (("u", "uint"), ("s", "int"))
    for width, word in zip(_WIDTHS, ("char", "short", "int", "long long"), strict=True)
)
"""The same types as C text, for a compiler that includes no headers."""

_CODES: Final = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "s8": "b", "s16": "h", "s32": "i", "s64": "q"}

_RESERVED: Final = re.compile(
    "auto|break|case|char|const|continue|default|do|double|else|enum|extern|float|for|goto|if|inline|int|long|register|"
    "restrict|return|short|signed|sizeof|static|struct|switch|typedef|typeof|union|unsigned|void|volatile|while|asm|"
    "bool|true|false|NULL|_[A-Z].*|__.*"
)


@dataclass(frozen=True, slots=True)
class Member:
    """One field of a struct."""

    name: str
    type: str
    """``u8`` ... ``u64``, ``s8`` ... ``s64``."""
    count: int | None
    """Elements, or None for a single integer."""
    offset: int
    """Bytes from the start of the struct."""

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return int(self.type[1:]) // 8

    @property
    def size(self) -> int:
        """Bytes of the whole member."""
        return self.width * (1 if self.count is None else self.count)


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct with its C layout (natural alignment, little-endian).

    Example:
        >>> point = lay_out("point", [("u8", "kind", None), ("s32", "at", 2)])
        >>> [(m.name, m.offset) for m in point.members], point.size
        ([('kind', 0), ('at', 4)], 12)
        >>> point.decode(point.encode({"at": [1, -2]}))
        {'kind': 0, 'at': [1, -2]}
    """

    name: str
    members: tuple[Member, ...]
    size: int
    """Bytes, trailing padding included."""
    alignment: int
    _codec: struct.Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text, end = "<", 0
        for member in self.members:
            text += f"{member.offset - end}x{member.size // member.width}{_CODES[member.type]}"
            end = member.offset + member.size
        object.__setattr__(self, "_codec", struct.Struct(f"{text}{self.size - end}x"))

    def decode(self, data: bytes | bytearray | memoryview) -> dict[str, int | list[int]]:
        """Return the fields of ``size`` bytes."""
        flat = self._codec.unpack(data)
        fields: dict[str, int | list[int]] = {}
        index = 0
        for member in self.members:
            if member.count is None:
                fields[member.name] = flat[index]
                index += 1
            else:
                fields[member.name] = list(flat[index : index + member.count])
                index += member.count
        return fields

    def encode(self, fields: Mapping[str, int | list[int]]) -> bytes:
        """Return the bytes of fields that fit; what is not named is zero, padding too.

        Raises:
            struct.error: A value does not fit, or an array has another length.
        """
        flat: list[int] = []
        for member in self.members:
            value = fields.get(member.name, 0 if member.count is None else [0] * member.count)
            if isinstance(value, int):
                flat.append(value)
            else:
                flat.extend(value)
        return self._codec.pack(*flat)

    def declaration(self) -> str:
        """Return the struct as C text on one line."""
        body = " ".join(f"{m.type} {m.name}{'' if m.count is None else f'[{m.count}]'};" for m in self.members)
        return f"struct {self.name} {{ {body} }};\n"

    def assertions(self) -> str:
        """Return C text that fails to compile where the compiler sees another layout."""
        of = f"struct {self.name}"
        lines = [f'_Static_assert(sizeof({of}) == {self.size}, "{of}");']
        for member in self.members:
            shape = "" if member.count is None else f"[{member.count}]"
            lines.append(f'_Static_assert(__builtin_offsetof({of}, {member.name}) == {member.offset}, "{of}");')
            lines.append(
                f"_Static_assert(__builtin_types_compatible_p("
                f'__typeof__((({of} *)0)->{member.name}), {member.type}{shape}), "{of}");'
            )
        return "\n".join(lines) + "\n"


def lay_out(name: str, fields: Iterable[tuple[str, str, int | None]]) -> Struct:
    """Place (type, name, count) fields one after the other, each at its natural alignment."""
    members: list[Member] = []
    end, alignment = 0, 1
    for kind, member_name, count in fields:
        width = int(kind[1:]) // 8
        alignment = max(alignment, width)
        member = Member(member_name, kind, count, -(-end // width) * width)
        members.append(member)
        end = member.offset + member.size
    return Struct(name, tuple(members), -(-end // alignment) * alignment, alignment)


def is_field_name(name: str) -> bool:
    """Say whether a field may be called so: an ASCII C identifier that no compiler reserves."""
    is_identifier = name.isidentifier() and name.isascii()
    return is_identifier and name not in TYPES and _RESERVED.fullmatch(name) is None


def parse_members(
    name: str, source: str, tokens: list[Token], start: int, constants: Mapping[str, int]
) -> tuple[Struct, int]:
    """Read a struct's members from behind its opening brace to its semicolon.

    Args:
        name: The struct's tag.
        source: The text, for places.
        tokens: All tokens of the text without newlines and directives.
        start: Index of the token behind the brace.
        constants: Values of ``#define NAME integer`` names, for array sizes.

    Returns:
        The struct, and the index of the token behind its semicolon.

    Raises:
        GuestSyntaxError: It holds what the language does not have.
    """
    cursor = _Cursor(source, tokens, start)
    fields: list[tuple[str, str, int | None]] = []
    seen: set[str] = set()
    while not cursor.take("}"):
        kind = cursor.next("a field type")
        if kind.text not in TYPES:
            raise GuestSyntaxError(
                f"{kind.text!r} is not a field type of struct {name}",
                place(source, kind.offset),
                "use u8, u16, u32, u64, s8, s16, s32 or s64 (a float field is an unsigned integer of its width)",
            )
        while True:
            member = cursor.next("a field name")
            if not is_field_name(member.text):
                cursor.fail(f"{member.text!r} is not a field name", member)
            if member.text in seen:
                cursor.fail(f"struct {name} has two fields {member.text!r}", member)
            seen.add(member.text)
            fields.append((TYPES[kind.text], member.text, cursor.array_size(constants)))
            if cursor.take(";"):
                break
            cursor.expect(",", "',' or ';' behind a field")
    cursor.expect(";", f"';' right behind struct {name} (attributes and variables are not part of the language)")
    if not fields:
        raise GuestSyntaxError(f"struct {name} has no fields", place(source, tokens[start].offset))
    return lay_out(name, fields), cursor.index


class _Cursor:
    """A place in the tokens, with the errors that name it."""

    def __init__(self, source: str, tokens: list[Token], index: int) -> None:
        self.source, self.tokens, self.index = source, tokens, index

    def fail(self, what: str, token: Token) -> None:
        raise GuestSyntaxError(what, place(self.source, token.offset))

    def next(self, wanted: str) -> Token:
        if self.index >= len(self.tokens):
            raise GuestSyntaxError(f"the text ends where {wanted} is due", place(self.source, len(self.source)))
        token = self.tokens[self.index]
        self.index += 1
        return token

    def take(self, text: str) -> bool:
        found = self.index < len(self.tokens) and self.tokens[self.index].text == text
        self.index += found
        return found

    def expect(self, text: str, wanted: str) -> None:
        token = self.next(wanted)
        if token.text != text:
            self.fail(f"{token.text!r} where {wanted} is due", token)

    def array_size(self, constants: Mapping[str, int]) -> int | None:
        if not self.take("["):
            return None
        token = self.next("an array size")
        size = constants.get(token.text) if token.kind == "name" else parse_integer(token.text)
        if size is None or not 1 <= size <= MAX_ELEMENTS:
            raise GuestSyntaxError(
                f"{token.text!r} is not an array size from 1 to {MAX_ELEMENTS}",
                place(self.source, token.offset),
                "write a number, or a name that is #defined as one",
            )
        self.expect("]", "']' behind an array size")
        if self.take("["):
            self.fail("an array has one dimension here", self.tokens[self.index - 1])
        return size
