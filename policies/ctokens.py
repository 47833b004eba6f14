"""The tokens of C text, as a compiler would cut them, with their places.

Made for saying what a text does *not* hold, so it must see what the compiler sees:
line splices go first (C11 5.1.1.2, phase 2; GCC and Clang allow white space behind the
backslash), and what could be read in two ways is refused: trigraphs, NUL, and a
carriage return that ends no line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runvisor.policies.errors import GuestSyntaxError

_TOKEN: Final = re.compile(
    r"""(?P<skip>(?:[ \t\r\f\v]|/\*.*?\*/|//[^\n]*)+)
      | (?P<newline>\n)
      | (?P<text>"(?:\\[^\n]|[^"\\\n])*"|'(?:\\[^\n]|[^'\\\n])*')
      | (?P<name>[A-Za-z_$][\w$]*)
      | (?P<number>\.?[0-9](?:[eEpP][+-]|[\w.])*)
      | (?P<mark>%:%:|%:|<:|:>|<%|%>|\#\#|->|<<|>>|&&|\|\||[<>=!]=|.)""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_SPLICE: Final = re.compile(r"\\[ \t\r\f\v]*\n")
_AMBIGUOUS: Final = re.compile(r"\0|\r(?!\n)|\?\?[=/'()!<>-]")
_INTEGER: Final = re.compile(r"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)(?:[uU]?[lL]{0,2}|[lL]{1,2}[uU])", re.ASCII)
DIGRAPHS: Final = {"%:": "#", "%:%:": "##", "<:": "[", ":>": "]", "<%": "{", "%>": "}"}


@dataclass(frozen=True, slots=True)
class Token:
    """One preprocessing token."""

    kind: str
    """``name``, ``number``, ``text``, ``mark`` or ``newline``."""
    text: str
    """Without splices; a digraph as what it stands for."""
    offset: int
    """Where it begins in the source."""


def tokenize(source: str) -> Iterator[Token]:
    r"""Yield the tokens of C text; comments are white space, newlines are tokens.

    Raises:
        GuestSyntaxError: A comment or a literal does not end, or a character could be
            read in two ways.

    Example:
        >>> [token.text for token in tokenize("in\\\nt x; // one")]
        ['int', 'x', ';']
    """
    if ambiguous := _AMBIGUOUS.search(source):
        raise GuestSyntaxError(
            f"{ambiguous.group()!r} is not part of the record language", place(source, ambiguous.start())
        )
    text, starts, shifts = _spliced(source)

    def origin(at: int) -> int:
        return at + shifts[bisect_right(starts, at) - 1]

    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        assert match is not None  # the last alternative takes any character
        kind, found = match.lastgroup or "", match.group()
        if kind == "mark" and (found in "\"'" or (found == "/" and text.startswith("/*", position))):
            what = "a comment" if found == "/" else "a literal"
            raise GuestSyntaxError(f"{what} does not end", place(source, origin(position)))
        if kind != "skip":
            yield Token(kind, DIGRAPHS.get(found, found), origin(position))
        position = match.end()


def _spliced(source: str) -> tuple[str, list[int], list[int]]:
    """Join spliced lines; return the text, and from which places on offsets differ by how much."""
    pieces: list[str] = []
    starts, shifts = [0], [0]
    end = length = 0
    for match in _SPLICE.finditer(source):
        pieces.append(source[end : match.start()])
        length += match.start() - end
        end = match.end()
        starts.append(length)
        shifts.append(end - length)
    return "".join([*pieces, source[end:]]), starts, shifts


def place(source: str, offset: int) -> str:
    """Return ``line:column`` of an offset, both counted from 1."""
    return f"{source.count(chr(10), 0, offset) + 1}:{offset - source.rfind(chr(10), 0, offset)}"


def parse_integer(text: str) -> int | None:
    """Return the value of a C integer literal, or None if it is not one.

    Example:
        >>> [parse_integer(text) for text in ("0x1F", "017", "9ULL", "1.5", "x")]
        [31, 15, 9, None, None]
    """
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = match[1]
    return int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10)


def is_floating(text: str) -> bool:
    """Say whether a C number literal is one of floating point.

    Example:
        >>> [is_floating(text) for text in ("1.5", "1e3", "0x1p4", "0xE", "100ULL")]
        [True, True, True, False, False]
    """
    exponents = "pP" if text[:2] in ("0x", "0X") else "eE"
    return "." in text or any(mark in text for mark in exponents)
