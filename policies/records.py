"""Record programs: one C function that sees every record of an array, one after the other.

The language ``c-record``, the same on every engine that runs it::

    struct state { u64 total; u32 last[4]; };           /* optional: kept from record to record */
    struct output { u64 sum; u32 id; };                 /* optional: one for each selected record */

    int on_record(struct record *r, struct state *s, struct output *o)
    {
        s->total += r->value;
        s->last[r->id & 3] = r->id;
        o->sum = s->total;
        o->id = r->id;
        return r->value > 500;                          /* non-zero selects the record */
    }

The third parameter is there if, and only if, the program declares ``struct output``.

The task's inputs (`runvisor.policies.record_inputs`) are ``{"records": array}``: a numpy
array of one dimension, structured or plain (then the field is called ``value``), or
bytes; and optionally ``"state"``, the first values of state fields (the others are zero),
and ``"return"``, what is to come back. The value (`runvisor.policies.record_answers`) is
``{"selected": n, "state": {field: value}}``, and the arrays that were asked for.

- ``struct record`` is generated from the array's dtype. A program may write it
  itself; then every field, its type and its offset must be those of the dtype.
- Fields are u8 ... u64, s8 ... s64 (also ``__u8``, ``uint8_t`` and so on), structs that
  were declared before, and arrays of both with one dimension; little-endian, at their
  natural alignment. bool arrives as u8, bytes ``S<n>`` as ``u8[n]``, datetime64 and
  timedelta64 as s64.
- There is no floating point. A float field arrives as the unsigned integer of the
  same width that holds its IEEE 754 bits (of two floats that are not negative, the
  larger one has the larger bits).
- A program includes no files and has no assembly, no global or static data and no
  recursion; loops need a small constant bound. What C leaves undefined (division by
  zero, shifts beyond the width) is undefined here too. Records may be written to;
  nobody reads them back. An output is zero before the function sees it.

A program that compiles to the same `RecordProgram` answers the same everywhere: both
engines take its layouts, its C text around the author's, and its value from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from runvisor.policies.dtypes import check_same, has_layout, laid_out, record_of
from runvisor.policies.errors import GuestSyntaxError, InvalidTask
from runvisor.policies.record_inputs import Records
from runvisor.policies.record_text import ENTRY, read
from runvisor.policies.struct_values import StructValues, first_state
from runvisor.policies.structs import TYPEDEFS, Struct
from runvisor.policies.values import Value

LANGUAGE: Final = "c-record"
PROGRAM_FILE: Final = "program.c"
"""The file name that compilers give in messages about the author's lines."""
LAYOUT_FILE: Final = "layout.c"
"""The file name in messages about a layout that differs from the struct's text."""

MAX_RECORD_BYTES: Final = 32 * 1024
MAX_OUTPUT_BYTES: Final = 32 * 1024
"""Of one record."""
MAX_STATE_BYTES: Final = 64 * 1024 * 1024
_COUNT_BYTES: Final = 64
"""More than what the count takes on the wire, and what lies around it and the state."""


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
    output: Struct | None = None
    """None: the function takes none."""
    collects: bool = False
    """It is noted which records were selected; with outputs it always is."""
    _values: StructValues | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_values", StructValues(self.state) if self.state else None)

    @property
    def state_bytes(self) -> int:
        """Bytes of the state, zero without one."""
        return self.state.size if self.state else 0

    @property
    def output_bytes(self) -> int:
        """Bytes of the output of one record, zero without one."""
        return self.output.size if self.output else 0

    @property
    def collected_bytes(self) -> int:
        """Bytes that are noted for each record: a mark, and its output."""
        return 1 + self.output_bytes if self.collects else 0

    @property
    def widest_value(self) -> int:
        """No count and state take more bytes than this on the wire."""
        return _COUNT_BYTES + (self._values.widest_bytes if self._values else 0)

    @property
    def narrowest_value(self) -> int:
        """And none take fewer."""
        return self._values.narrowest_bytes if self._values else 0

    @property
    def declarations(self) -> str:
        """C text to put first: integer types, the structs as incomplete types, `ENTRY`."""
        third = ", struct output *o" if self.output else ""
        structs = "struct record;\nstruct state;\nstruct output;\n"
        return f"{TYPEDEFS}{structs}static int {ENTRY}(struct record *r, struct state *s{third});\n"

    @property
    def body(self) -> str:
        """C text to put last: a generated ``struct record``, the program, layout checks.

        Messages about the author's text keep the author's line numbers, in a file
        called `PROGRAM_FILE`; those about the layout are in `LAYOUT_FILE`.
        """
        generated = "" if self.writes_record else self.record.declaration()
        checks = "".join(struct.assertions() for struct in (self.record, self.state, self.output) if struct)
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
        return first_state(self._values, fields)

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
        return {"selected": selected, "state": self._values.decode(state) if self._values else {}}

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


def parse_program(source: str, dtype: np.dtype[Any], *, collects: bool = False) -> RecordProgram:
    """Read a program against the dtype of its records.

    Args:
        source: The author's C text.
        dtype: The dtype of ``inputs["records"]``.
        collects: Whether it is to be noted which records were selected.

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
        runvisor.policies.errors.InvalidTask: field 'value' differs: 's64 value' at byte 8 of struct record, \
<u8 'value' at byte 4 of the records' dtype (at inputs['records']); declare it 'u64 value' there, \
or leave struct record out
    """
    structs, _ = read(source)
    record = record_of(dtype)
    written = structs.get("record")
    if written is not None:
        check_same(written, record, dtype)
        record = written
    state, output = structs.get("state"), structs.get("output")
    if record.size > MAX_RECORD_BYTES:
        raise InvalidTask(
            f"a record of {record.size} bytes is larger than {MAX_RECORD_BYTES}", "inputs['records']", "split it"
        )
    for name, struct, most in (("state", state, MAX_STATE_BYTES), ("output", output, MAX_OUTPUT_BYTES)):
        if struct is not None and struct.size > most:
            raise GuestSyntaxError(f"{name} of {struct.size} bytes is larger than {most}", f"struct {name}")
    is_direct = has_layout(dtype, record)
    return RecordProgram(source, record, state, written is not None, is_direct, output, collects or output is not None)
