"""C structs of integers, and of structs of them: their text and their layout.

A deliberately small part of C. It reads what the record language allows in
``struct record``, ``struct state`` and ``struct output`` and refuses everything else
with a place; the compiler later checks by static assertions that it saw the same
layout. What numpy makes of one is in `runvisor.policies.dtypes`.

Sources: C11 6.7.2.1 (structures), System V ABI "Aggregates and Unions" (natural
alignment; the x86-64, AArch64, BPF and wasm32 ABIs agree for fixed-width integers).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from runvisor.policies.ctokens import Token, parse_integer, place
from runvisor.policies.errors import GuestSyntaxError

MAX_ELEMENTS: Final = 1 << 24
"""Most elements of one array member."""
MAX_DEPTH: Final = 8
"""Most structs inside each other."""

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
    """``u8`` ... ``u64``, ``s8`` ... ``s64``, or ``struct`` and a tag."""
    count: int | None
    """Elements, or None for a single one."""
    offset: int
    """Bytes from the start of the struct."""
    of: Struct | None = None
    """The struct that it is made of; None for integers."""

    @property
    def width(self) -> int:
        """Bytes of one element."""
        return self.of.size if self.of else int(self.type[1:]) // 8

    @property
    def size(self) -> int:
        """Bytes of the whole member."""
        return self.width * (1 if self.count is None else self.count)

    @property
    def text(self) -> str:
        """As C declares it, without the semicolon."""
        return f"{self.type} {self.name}{'' if self.count is None else f'[{self.count}]'}"


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct with its C layout (natural alignment, little-endian).

    Example:
        >>> point = lay_out("point", [("u8", "kind", None), ("s32", "at", 2)])
        >>> shape = lay_out("shape", [("u8", "id", None), (point, "corners", 3)])
        >>> [(m.text, m.offset) for m in shape.members], shape.size
        ([('u8 id', 0), ('struct point corners[3]', 4)], 40)
    """

    name: str
    members: tuple[Member, ...]
    size: int
    """Bytes, trailing padding included."""
    alignment: int

    def parts(self) -> Iterator[Struct]:
        """Yield every struct inside this one, each once and before those that hold it, then this one."""
        seen: dict[Struct, None] = {}
        for member in self.members:
            if member.of is not None:
                seen.update(dict.fromkeys(member.of.parts()))
        yield from seen
        yield self

    def declaration(self) -> str:
        """Return the struct as C text on one line, those inside it first."""
        return "".join(
            f"struct {part.name} {{ {' '.join(f'{member.text};' for member in part.members)} }};\n"
            for part in self.parts()
        )

    def assertions(self) -> str:
        """Return C text that fails to compile where the compiler sees another layout."""
        return "".join(f"{line}\n" for part in self.parts() for line in part._assertions())

    def _assertions(self) -> Iterator[str]:
        of = f"struct {self.name}"
        yield f'_Static_assert(sizeof({of}) == {self.size}, "{of}");'
        for member in self.members:
            shape = "" if member.count is None else f"[{member.count}]"
            yield f'_Static_assert(__builtin_offsetof({of}, {member.name}) == {member.offset}, "{of}");'
            yield (
                f"_Static_assert(__builtin_types_compatible_p("
                f'__typeof__((({of} *)0)->{member.name}), {member.type}{shape}), "{of}");'
            )


def lay_out(name: str, fields: Iterable[tuple[str | Struct, str, int | None]]) -> Struct:
    """Place (type, name, count) fields one after the other, each at its natural alignment."""
    members: list[Member] = []
    end, alignment = 0, 1
    for kind, member_name, count in fields:
        of = kind if isinstance(kind, Struct) else None
        natural = of.alignment if of else int(str(kind)[1:]) // 8
        alignment = max(alignment, natural)
        type_name = f"struct {of.name}" if of else str(kind)
        member = Member(member_name, type_name, count, -(-end // natural) * natural, of)
        members.append(member)
        end = member.offset + member.size
    return Struct(name, tuple(members), -(-end // alignment) * alignment, alignment)


def is_field_name(name: str) -> bool:
    """Say whether a field may be called so: an ASCII C identifier that no compiler reserves."""
    is_identifier = name.isidentifier() and name.isascii()
    return is_identifier and name not in TYPES and _RESERVED.fullmatch(name) is None


class StructReader:
    """Reads the structs that a text declares outside its functions.

    Args:
        source: The text, for places.
        tokens: All tokens of the text without newlines and directives.
        constants: Values of ``#define NAME integer`` names, for array sizes.
    """

    def __init__(self, source: str, tokens: list[Token], constants: Mapping[str, int]) -> None:
        self._source = source
        self._tokens = tokens
        self._constants = constants
        self._starts: dict[str, int] = {}
        self._parts: dict[str, Struct] = {}

    def note(self, name: str, start: int) -> None:
        """Remember where a struct's members begin: later ones may be made of it."""
        self._starts[name] = start
        self._parts.pop(name, None)

    def read(self, name: str, start: int, depth: int = 0) -> tuple[Struct, int]:
        """Read a struct's members from behind its opening brace to its semicolon.

        Args:
            name: The struct's tag.
            start: Index of the token behind the brace.
            depth: How many structs it lies in.

        Returns:
            The struct, and the index of the token behind its semicolon.

        Raises:
            GuestSyntaxError: It holds what the language does not have.
        """
        cursor = _Cursor(self._source, self._tokens, start)
        fields: list[tuple[str | Struct, str, int | None]] = []
        seen: set[str] = set()
        while not cursor.take("}"):
            kind = self._type(name, cursor, depth)
            while True:
                member = cursor.next("a field name")
                if not is_field_name(member.text):
                    cursor.fail(f"{member.text!r} is not a field name", member)
                if member.text in seen:
                    cursor.fail(f"struct {name} has two fields {member.text!r}", member)
                seen.add(member.text)
                fields.append((kind, member.text, cursor.array_size(self._constants)))
                if cursor.take(";"):
                    break
                cursor.expect(",", "',' or ';' behind a field")
        cursor.expect(";", f"';' right behind struct {name} (attributes and variables are not part of the language)")
        if not fields:
            raise GuestSyntaxError(f"struct {name} has no fields", place(self._source, self._tokens[start].offset))
        return lay_out(name, fields), cursor.index

    def _type(self, name: str, cursor: _Cursor, depth: int) -> str | Struct:
        """Read a field's type: an integer, or a struct that was declared before."""
        kind = cursor.next("a field type")
        if kind.text in TYPES:
            return TYPES[kind.text]
        if kind.text != "struct":
            raise GuestSyntaxError(
                f"{kind.text!r} is not a field type of struct {name}",
                place(self._source, kind.offset),
                "use u8, u16, u32, u64, s8, s16, s32, s64 (a float field is an unsigned integer of its width), "
                "or a struct of them",
            )
        tag = cursor.next("a struct's name")
        start = self._starts.get(tag.text)
        if start is None:
            cursor.fail(f"struct {tag.text} is not declared before struct {name}", tag)
        if depth == MAX_DEPTH:
            cursor.fail(f"more than {MAX_DEPTH} structs lie inside each other", tag)
        if tag.text not in self._parts:
            self._parts[tag.text] = self.read(tag.text, start, depth + 1)[0]
        return self._parts[tag.text]


class _Cursor:
    """A place in the tokens, with the errors that name it."""

    def __init__(self, source: str, tokens: list[Token], index: int) -> None:
        self.source, self.tokens, self.index = source, tokens, index

    def fail(self, what: str, token: Token) -> NoReturn:
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
