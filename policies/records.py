"""Record programs: one C function that sees every record of an array, one after the other.

The language ``c-record``, the same on every engine that runs it::

    struct state { u64 total; u32 last[4]; };           /* optional: kept from record to record */

    int on_record(struct record *r, struct state *s)    /* non-zero selects the record */
    {
        s->total += r->value;
        s->last[r->id & 3] = r->id;
        return r->value > 500;
    }

The task's inputs are ``{"records": array}``: a numpy array of one dimension,
structured or plain (then the field is called ``value``), and optionally
``"state"``: the first values of state fields (the others are zero). The value is
``{"selected": n, "state": {field: int | [int, ...]}}``.

- ``struct record`` is generated from the array's dtype. A program may write it
  itself; then every field, its type and its offset must be those of the dtype.
- Fields are u8 ... u64, s8 ... s64 (also ``__u8``, ``uint8_t`` and so on) and fixed
  arrays of them, little-endian, at their natural alignment. bool arrives as u8,
  bytes ``S<n>`` as ``u8[n]``, datetime64 and timedelta64 as s64.
- There is no floating point. A float field arrives as the unsigned integer of the
  same width that holds its IEEE 754 bits (of two floats that are not negative, the
  larger one has the larger bits).
- A program includes no files and has no assembly, no global or static data and no
  recursion; loops need a small constant bound. What C leaves undefined (division by
  zero, shifts beyond the width) is undefined here too. Records may be written to;
  nobody reads them back.

A program that compiles to the same `RecordProgram` answers the same everywhere: both
engines take its layouts, its C text around the author's, and its value from here.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from runvisor.policies.ctokens import Token, is_floating, parse_integer, place, tokenize
from runvisor.policies.dtypes import check_same, has_layout, laid_out, record_of
from runvisor.policies.errors import GuestSyntaxError, InvalidTask
from runvisor.policies.structs import TYPEDEFS, Struct, parse_members
from runvisor.policies.values import Value

LANGUAGE: Final = "c-record"
ENTRY: Final = "on_record"
"""The author's function."""
PROGRAM_FILE: Final = "program.c"
"""The file name that compilers give in messages about the author's lines."""
LAYOUT_FILE: Final = "layout.c"
"""The file name in messages about a layout that differs from the struct's text."""

MAX_RECORD_BYTES: Final = 32 * 1024
MAX_STATE_BYTES: Final = 64 * 1024 * 1024

Records: TypeAlias = np.ndarray[Any, np.dtype[Any]]

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


@dataclass(frozen=True, slots=True)
class RecordProgram:
    """A program with the layouts that its text and its records' dtype agree on."""

    source: str
    record: Struct
    state: Struct | None
    """None: the program keeps none; its pointer leads nowhere."""
    writes_record: bool
    """The author wrote ``struct record``; else it is generated."""
    is_direct: bool
    """Items of the records' dtype have the layout of ``struct record`` already."""

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, zero without one."""
        return self.state.size if self.state else 0

    @property
    def declarations(self) -> str:
        """C text to put first: integer types, the structs as incomplete types, `ENTRY`."""
        return f"{TYPEDEFS}struct record;\nstruct state;\nstatic int {ENTRY}(struct record *r, struct state *s);\n"

    @property
    def body(self) -> str:
        """C text to put last: a generated ``struct record``, the program, layout checks.

        Messages about the author's text keep the author's line numbers, in a file
        called `PROGRAM_FILE`; those about the layout are in `LAYOUT_FILE`.
        """
        generated = "" if self.writes_record else self.record.declaration()
        checks = self.record.assertions() + (self.state.assertions() if self.state else "")
        return f'{generated}#line 1 "{PROGRAM_FILE}"\n{self.source}\n#line 1 "{LAYOUT_FILE}"\n{checks}'

    def translation_unit(self, harness: str) -> str:
        """Return the C text to compile: declarations, an engine's harness, body.

        The harness comes before the program, where none of the author's macros can
        reach it; it sees the structs as incomplete types.

        Args:
            harness: The engine's own C text, in whole lines.
        """
        return f'{self.declarations}#line 1 "harness.c"\n{harness}\n{self.body}'

    def initial_state(self, fields: Mapping[str, Any]) -> bytes:
        """Return the state's bytes before the first record.

        Args:
            fields: Values by field name; fields left out are zero.

        Raises:
            InvalidTask: A name that the state does not have, or a value that does not fit.
        """
        if self.state is None:
            if fields:
                raise InvalidTask(
                    "the program has no state to set", "inputs['state']", "declare struct state, or leave it out"
                )
            return b""
        members = {member.name: member for member in self.state.members}
        checked: dict[str, int | list[int]] = {}
        for name, value in fields.items():
            member = members.get(name)
            where = f"inputs['state'][{name!r}]"
            if member is None:
                raise InvalidTask(f"struct state has no field {name!r}", where, f"it has {', '.join(members)}")
            checked[name] = _integers(value, member.count, member.type, where)
        return self.state.encode(checked)

    def value(self, selected: int, state: bytes | bytearray | memoryview) -> dict[str, Value]:
        """Return the value of an execution.

        Args:
            selected: How many records the function selected.
            state: The state's bytes behind the last record.

        Example:
            >>> program = parse_program("struct state { s16 low; u8 seen[2]; };"
            ...     " int on_record(struct record *r, struct state *s) { return 1; }", np.dtype("<u4"))
            >>> program.value(3, program.initial_state({"low": -7}))
            {'selected': 3, 'state': {'low': -7, 'seen': [0, 0]}}
        """
        return {"selected": selected, "state": self.state.decode(state) if self.state else {}}

    def copy_records(self, records: Records, target: memoryview) -> None:
        """Write the records in the program's layout.

        One plain copy where the dtype already has that layout, which C-aligned
        dtypes (``align=True``) and those without gaps do; else field by field.

        Args:
            records: Of the dtype that the program was parsed with.
            target: At least ``len(records) * record.size`` writable bytes.
        """
        size = self.record.size
        whole = np.frombuffer(target, np.uint8, len(records) * size)
        if not self.is_direct:
            whole[:] = 0
            target_items = whole.view(laid_out(records.dtype, self.record))
            if records.dtype.names is None:
                target_items[self.record.members[0].name] = records
            else:
                target_items[...] = records
        elif records.flags.c_contiguous:
            whole[:] = records.view(np.uint8)
        else:  # strided: whole items, not field by field
            item = np.dtype((np.void, size))
            whole.view(item)[...] = records.view(item)


@dataclass(frozen=True, slots=True, eq=False)
class RecordInputs:
    """The checked inputs of a record task."""

    records: Records
    state: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: Value) -> RecordInputs:
        """Check a task's inputs.

        Raises:
            InvalidTask: They are not ``{"records": array}`` with an optional ``"state"``.
        """
        shape = "pass {'records': array} and optionally 'state'"
        if not isinstance(inputs, Mapping) or "records" not in inputs:
            raise InvalidTask("a record program needs records", "inputs", shape)
        unknown = sorted(str(key) for key in inputs if key not in ("records", "state"))
        if unknown:
            raise InvalidTask(f"a record program takes no input {unknown[0]!r}", "inputs", shape)
        records, state = inputs["records"], inputs.get("state")
        if not isinstance(records, np.ndarray) or records.ndim != 1:
            raise InvalidTask(
                "the records are not an array of one dimension", "inputs['records']", "pass a structured numpy array"
            )
        if state is not None and not isinstance(state, Mapping):
            raise InvalidTask("the state is not a mapping", "inputs['state']", "pass {field: value}")
        return cls(records, state or {})


def parse_program(source: str, dtype: np.dtype[Any]) -> RecordProgram:
    """Read a program against the dtype of its records.

    Args:
        source: The author's C text.
        dtype: The dtype of ``inputs["records"]``.

    Raises:
        GuestSyntaxError: The text holds what the language does not have; ``where`` is
            ``line:column``.
        InvalidTask: The dtype cannot be a record, or is not the one the author wrote.

    Example:
        >>> dtype = np.dtype([("id", "<u4"), ("value", "<u8")])
        >>> program = parse_program("int on_record(struct record *r, struct state *s) { return r->id > 3; }", dtype)
        >>> [(member.name, member.offset) for member in program.record.members], program.record.size
        ([('id', 0), ('value', 8)], 16)
        >>> parse_program("struct record { u32 id; s64 value; }; int on_record() { return 0; }", dtype)
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.InvalidTask: field 2 of struct record is 's64 value', not the records' \
'u64 value' (at inputs['records']); declare it so, or leave struct record out
    """
    structs = _read(source)
    record = record_of(dtype)
    written = structs.get("record")
    if written is not None:
        check_same(written, record, dtype)
        record = written
    state = structs.get("state")
    if record.size > MAX_RECORD_BYTES:
        raise InvalidTask(
            f"a record of {record.size} bytes is larger than {MAX_RECORD_BYTES}", "inputs['records']", "split it"
        )
    if state is not None and state.size > MAX_STATE_BYTES:
        raise GuestSyntaxError(f"a state of {state.size} bytes is larger than {MAX_STATE_BYTES}", "struct state")
    return RecordProgram(source, record, state, written is not None, has_layout(dtype, record))


def _read(source: str) -> dict[str, Struct]:
    """Check what can be told without a compiler, and return the structs by name."""
    tokens, constants = _without_directives(source)
    structs: dict[str, Struct] = {}
    item: list[Token] = []
    depth, index, has_entry = 0, 0, False
    while index < len(tokens):
        token = tokens[index]
        _check_token(source, token, inside=depth > 0)
        words = [near.text for near in tokens[index : index + 3]]
        if words[:2] == ["[", "["]:
            raise GuestSyntaxError("'[[' is not part of the record language", place(source, token.offset))
        index += 1
        if not depth and words[0] == "struct" and words[1:] in (["record", "{"], ["state", "{"]):
            if words[1] in structs:
                raise GuestSyntaxError(f"struct {words[1]} is declared twice", place(source, token.offset))
            structs[words[1]], index = parse_members(words[1], source, tokens, index + 2, constants)
            item = []
            continue
        has_entry = has_entry or (not depth and words[:2] == [ENTRY, "("])
        before = depth
        depth += (token.text in _OPENING) - (token.text in _CLOSING)
        if before and depth:
            continue
        item.append(token)
        if token.text == ";" or (token.text == "}" and any(near.text == "(" for near in item)):
            _check_item(source, item)
            item = []
    if not has_entry:
        raise GuestSyntaxError(
            f"the program has no function {ENTRY}",
            "1:1",
            f"define int {ENTRY}(struct record *r, struct state *s)",
        )
    return structs


def _check_token(source: str, token: Token, *, inside: bool) -> None:
    """Refuse what no engine, or not every engine, could compile."""
    what = remedy = ""
    if token.text in _BANNED:
        what = f"{token.text!r} is not part of the record language"
    elif token.text in _FLOATS or (token.kind == "number" and is_floating(token.text)):
        what, remedy = "there is no floating point in the record language", "count in integers, for one in thousandths"
    elif token.text == "static" and inside:
        what, remedy = "a function keeps no static data in the record language", "keep it in struct state"
    if what:
        raise GuestSyntaxError(what, place(source, token.offset), remedy)


def _check_item(source: str, item: list[Token]) -> None:
    """Refuse a variable outside every function."""
    words = [token.text for token in item]
    is_definition = words[-1] == "}" or words[0] in ("typedef", "_Static_assert") or words == [";"]
    is_type = words[0] in ("struct", "union", "enum") and (len(words) == 3 or words[-2:] == ["}", ";"])
    if "=" in words or not (is_definition or is_type or "(" in words):
        raise GuestSyntaxError(
            "a variable outside every function is not part of the record language",
            place(source, item[0].offset),
            "keep it in struct state",
        )


def _without_directives(source: str) -> tuple[list[Token], dict[str, int]]:
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
                _check_directive(source, directive, constants)
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
        _check_directive(source, directive, constants)
    return kept, constants


def _check_directive(source: str, tokens: list[Token], constants: dict[str, int]) -> None:
    words = [token.text for token in tokens[1:]]
    allowed = (
        not words
        or words[0] in _DIRECTIVES
        or (words[0] == "pragma" and any(tuple(words[1 : 1 + len(known)]) == known for known in _PRAGMAS))
    )
    if not allowed or any(word in _BANNED for word in words):
        name = next((word for word in words if word in _BANNED), f"#{words[0]}" if words else "#")
        remedy = "leave it out: the integer types are there already" if name == "#include" else ""
        raise GuestSyntaxError(f"{name} is not part of the record language", place(source, tokens[0].offset), remedy)
    if len(words) == 3 and words[0] == "define" and (number := parse_integer(words[2])) is not None:
        constants[words[1]] = number


def _integers(value: object, count: int | None, kind: str, where: str) -> int | list[int]:
    """Check a state field's first value."""
    if count is None:
        return _integer(value, kind, where)
    if isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != count:
        raise InvalidTask(f"not a list of {count} integers", where)
    return [_integer(item, kind, f"{where}[{index}]") for index, item in enumerate(value)]


def _integer(value: Any, kind: str, where: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidTask(f"{str(value)[:40]!r} is not an integer", where) from None
    bits, low = int(kind[1:]), 0
    if kind[0] == "s":
        bits, low = bits - 1, -(1 << (bits - 1))
    if not low <= number < 1 << bits:
        raise InvalidTask(f"{number} does not fit {kind}", where, f"give {low} to {(1 << bits) - 1}")
    return number
