"""What the text of an author's C program may hold, as far as can be told without a compiler.

Serves clear messages with places, and equal answers from every engine; that a compiler
opens no file of the host, and that the program touches nothing but its own memory, is
the work of the jail, the scan and the verifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runvisor.policies.ctokens import Token, is_floating, parse_integer, place, tokenize
from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.structs import Struct, StructReader

ENTRY: Final = "on_record"
"""The author's function of a record program."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between the languages whose texts are read here."""

    name: str
    """For messages."""
    structs: tuple[str, ...]
    """The structs whose layout counts."""
    entries: Mapping[str, str]
    """The author's function, by each name that it may have, with its parameters."""
    returns: str = "int"
    """What that function returns."""
    memory: str = "state"
    """The struct that outlives a call, for messages."""


RECORDS: Final = Dialect("record", ("record", "state", "output"), {ENTRY: "struct record *r, struct state *s"})

_DIRECTIVES: Final = frozenset(("define", "undef", "if", "ifdef", "ifndef", "elif", "else", "endif", "error"))
_PRAGMAS: Final = (("unroll",), ("clang", "loop"), ("GCC", "unroll"))
_BANNED: Final = frozenset(
    "asm __asm __asm__ _Pragma __has_include __has_include_next __has_embed".split(" ")
    + "__attribute __attribute__ __declspec ##".split(" ")
)
"""Ways to assembly, to files, or out of the section that a function belongs to; and ``##``,
with which a macro could spell any of them."""
_FLOATS: Final = frozenset(("float", "double", "_Float16", "_Float32", "_Float64", "__fp16", "_Complex"))
_OPENING: Final = frozenset(("{", "(", "["))
_CLOSING: Final = frozenset(("}", ")", "]"))


def read(source: str, dialect: Dialect = RECORDS) -> tuple[dict[str, Struct], str]:
    """Check a text.

    Args:
        source: The text.
        dialect: The language.

    Returns:
        Those of the dialect's structs that it declares, and the name of the author's function.

    Raises:
        GuestSyntaxError: It holds what the language does not have; ``where`` is ``line:column``.

    Example:
        >>> structs, entry = read("struct state { u8 n; }; int on_record(struct record *r, struct state *s) { }")
        >>> list(structs), entry
        (['state'], 'on_record')
    """
    tokens, constants = _without_directives(source, dialect)
    reader = StructReader(source, tokens, constants)
    structs: dict[str, Struct] = {}
    item: list[Token] = []
    depth, index, entry = 0, 0, ""
    while index < len(tokens):
        token = tokens[index]
        _check_token(source, token, dialect, inside=depth > 0)
        words = [near.text for near in tokens[index : index + 3]]
        if words[:2] == ["[", "["]:
            raise GuestSyntaxError(f"'[[' is not part of the {dialect.name} language", place(source, token.offset))
        index += 1
        if not depth and words[0] == "struct" and words[2:] == ["{"]:
            tag, start = words[1], index + 2
            if tag in structs:
                raise GuestSyntaxError(f"struct {tag} is declared twice", place(source, token.offset))
            if tag in dialect.structs:
                structs[tag], index = reader.read(tag, start)
                item = []
            reader.note(tag, start)
            if tag in dialect.structs:
                continue
        if not depth and words[0] in dialect.entries and words[1:2] == ["("]:
            if entry not in ("", words[0]):
                raise GuestSyntaxError(
                    f"the program has both {entry} and {words[0]}", place(source, token.offset), "make it two programs"
                )
            entry = words[0]
            if dialect is RECORDS:
                _check_parameters(source, tokens, index + 1, "output" in structs)
        before = depth
        depth += (token.text in _OPENING) - (token.text in _CLOSING)
        if before and depth:
            continue
        item.append(token)
        if token.text == ";" or (token.text == "}" and any(near.text == "(" for near in item)):
            _check_item(source, item, dialect)
            item = []
    if not entry:
        raise GuestSyntaxError(
            f"the program has no function {' or '.join(dialect.entries)}",
            "1:1",
            " or ".join(
                f"define {dialect.returns} {name}({parameters})" for name, parameters in dialect.entries.items()
            ),
        )
    return structs, entry


def _check_parameters(source: str, tokens: list[Token], start: int, has_output: bool) -> None:
    """Check that the function takes an output if, and only if, one is declared before it."""
    depth, commas, index = 1, 0, start
    while depth and index < len(tokens):
        text = tokens[index].text
        depth += (text in _OPENING) - (text in _CLOSING)
        commas += depth == 1 and text == ","
        index += 1
    if (commas == 2) != has_output:
        what, remedy = f"{ENTRY} takes an output, but struct output is not declared", "declare it before the function"
        if has_output:
            what, remedy = "struct output is declared, but nothing takes it", "add a parameter, struct output *o"
        raise GuestSyntaxError(what, place(source, tokens[start - 2].offset), remedy)


def _check_token(source: str, token: Token, dialect: Dialect, *, inside: bool) -> None:
    """Refuse what no engine, or not every engine, could compile."""
    what, remedy, language = "", "", f"the {dialect.name} language"
    if token.text in _BANNED:
        what = f"{token.text!r} is not part of {language}"
    elif token.text in _FLOATS or (token.kind == "number" and is_floating(token.text)):
        what, remedy = f"there is no floating point in {language}", "count in integers, for one in thousandths"
    elif token.text == "static" and inside:
        what, remedy = f"a function keeps no static data in {language}", f"keep it in struct {dialect.memory}"
    if what:
        raise GuestSyntaxError(what, place(source, token.offset), remedy)


def _check_item(source: str, item: list[Token], dialect: Dialect) -> None:
    """Refuse a variable outside every function."""
    words = [token.text for token in item]
    is_definition = words[-1] == "}" or words[0] in ("typedef", "_Static_assert") or words == [";"]
    is_type = words[0] in ("struct", "union", "enum") and (len(words) == 3 or words[-2:] == ["}", ";"])
    if "=" in words or not (is_definition or is_type or "(" in words):
        raise GuestSyntaxError(
            f"a variable outside every function is not part of the {dialect.name} language",
            place(source, item[0].offset),
            f"keep it in struct {dialect.memory}",
        )


def _without_directives(source: str, dialect: Dialect) -> tuple[list[Token], dict[str, int]]:
    """Return the tokens outside preprocessor lines, and the integers that are ``#define``d.

    The check of directives serves clear messages and equal answers; that a compiler
    opens no file of the host is the jail's work.
    """
    kept: list[Token] = []
    constants: dict[str, int] = {}
    directive: list[Token] | None = None
    at_line_start = True
    for token in tokenize(source):
        if token.kind == "newline":
            if directive is not None:
                _check_directive(source, directive, constants, dialect)
            directive, at_line_start = None, True
            continue
        if at_line_start and token.text == "#":
            directive = [token]
        elif directive is not None:
            directive.append(token)
        else:
            kept.append(token)
        at_line_start = False
    if directive is not None:
        _check_directive(source, directive, constants, dialect)
    return kept, constants


def _check_directive(source: str, tokens: list[Token], constants: dict[str, int], dialect: Dialect) -> None:
    words = [token.text for token in tokens[1:]]
    allowed = (
        not words
        or words[0] in _DIRECTIVES
        or (words[0] == "pragma" and any(tuple(words[1 : 1 + len(known)]) == known for known in _PRAGMAS))
    )
    if not allowed or any(word in _BANNED for word in words):
        name = next((word for word in words if word in _BANNED), f"#{words[0]}" if words else "#")
        remedy = "leave it out: the integer types are there already" if name == "#include" else ""
        what = f"{name} is not part of the {dialect.name} language"
        raise GuestSyntaxError(what, place(source, tokens[0].offset), remedy)
    if len(words) == 3 and words[0] == "define" and (number := parse_integer(words[2])) is not None:
        constants[words[1]] = number
