"""Event programs: an author's C program at one of the kernel's events, over one process, with a table as result.

The language ``c-event``. The first comment says where the program runs::

    // raw_tracepoint: sys_enter
    struct key   { u64 call; u8 name[16]; };         /* optional: what rows are told apart by */
    struct value { u64 times; u64 asked_bytes; };    /* what is counted */

    int key_of(struct event *e, struct key *k)       /* if there is a key; 0: not counted */
    {
        k->call = e->args[1];
        __builtin_memcpy(k->name, e->comm, 16);
        return k->call < 2;
    }
    void on_event(struct event *e, struct value *v)
    {
        v->times++;
        v->asked_bytes += e->call_args[2];
    }

A program is called in the thread whose event it is, for threads of the observed process only.
It finds in ``struct event``:

- ``pid``, ``tid``, ``comm[16]``: the process, the thread and its name;
- ``time_ns`` (the monotonic clock) and ``cpu``;
- at a raw tracepoint ``args[6]``, its arguments as the kernel's TP_PROTO lists them, and
  ``call_args[6]``: at ``sys_enter`` the arguments of the system call, elsewhere zero;
- at a tracepoint its fields by name (see `runvisor.policies.tracepoint_format`);
- at a function ``arg[6]``, its first integers and pointers, or when it returns ``ret``.

`runvisor.policies.event_hooks` says what the first line can be.

``read_user(to, size, from)`` and ``read_user_text(to, size, from)`` copy from the observed process's
memory into the key, the value or a local variable; they return less than zero if it is not there.
Nothing else of the kernel can be called.

- A key has integers and texts (``u8 name[n]``), and at most `MAX_KEY_BYTES`; a u64 is shown with a sign.
- A value has up to `MAX_VALUES` integers. Each core has its own, which the table sums; of a field that is
  called ``max_...`` it takes the largest. A field that is called ``..._ns`` is shown as a time, one
  ``...bytes`` as a size.
- Otherwise the C of record programs (see `runvisor.policies.records`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from runvisor.policies.ctokens import tokenize
from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.event_hooks import EventHook, read_hook
from runvisor.policies.observations import Cell, Column
from runvisor.policies.record_text import Dialect, read
from runvisor.policies.records import LAYOUT_FILE, PROGRAM_FILE
from runvisor.policies.structs import Member, Struct

ENTRY: Final = "on_event"
KEY_ENTRY: Final = "key_of"
MAX_KEY_BYTES: Final = 96
MAX_VALUES: Final = 8
MAX_ROWS: Final = 4096
_DIALECT: Final = Dialect(
    "event", ("key", "value"), {ENTRY: "struct event *e, struct value *v"}, returns="void", memory="value"
)
_LEAST, _MOST = -(2**63), 2**63 - 1


@dataclass(frozen=True, slots=True)
class EventProgram:
    """A program, where it runs, and the layout of its table."""

    source: str
    hook: EventHook
    """Where it runs."""
    key: Struct | None
    """None: the table has one row."""
    value: Struct

    @property
    def title(self) -> str:
        """What its table is called."""
        return self.hook.title

    @property
    def names(self) -> frozenset[str]:
        """Every name in its text."""
        return frozenset(token.text for token in tokenize(self.source) if token.kind == "name")

    @property
    def declarations(self) -> str:
        """C text to put first: the structs as incomplete types, the author's functions."""
        functions = f"static void {ENTRY}(struct event *e, struct value *v);\n"
        if self.key is not None:
            functions += f"static int {KEY_ENTRY}(struct event *e, struct key *k);\n"
        return f"struct event;\nstruct key;\nstruct value;\n{functions}"

    @property
    def body(self) -> str:
        """C text to put last: the program with its own line numbers, and the layouts' checks."""
        checks = "".join(struct.assertions() for struct in (self.key, self.value) if struct)
        return f'#line 1 "{PROGRAM_FILE}"\n{self.source}\n#line 1 "{LAYOUT_FILE}"\n{checks}'

    @property
    def columns(self) -> tuple[Column, ...]:
        """The table's columns."""
        keys = (
            [Column(member.name, "text" if member.count else "id") for member in self.key.members] if self.key else []
        )
        return (*keys, *map(_column, self.value.members))

    def rows(self, entries: Iterable[tuple[bytes, list[bytes]]]) -> list[tuple[Cell, ...]]:
        """Return the table's rows, the largest first value before the others.

        Args:
            entries: Keys, each with its value on each core; any bytes of the right size.
        """
        members = self.key.members if self.key else ()
        rows: list[tuple[Cell, ...]] = []
        for key, values in entries:
            cells = [_key_cell(key, member) for member in members]
            rows.append((*cells, *(_merged(values, member) for member in self.value.members)))
        return sorted(rows, key=lambda row: (-float(row[len(members)]), [str(cell) for cell in row]))


def parse_program(source: str) -> EventProgram:
    """Read a program.

    Args:
        source: The author's C text.

    Raises:
        GuestSyntaxError: The text holds what the language does not have; ``where`` is ``line:column``.

    Example:
        >>> program = parse_program('''// raw_tracepoint: sched_switch
        ... struct value { u64 times, max_wait_ns; };
        ... void on_event(struct event *e, struct value *v) { v->times++; }''')
        >>> program.title, [(column.name, column.kind) for column in program.columns]
        ('raw_tracepoint sched_switch', [('times', 'count'), ('max_wait_s', 'seconds')])
    """
    structs, _ = read(source, _DIALECT)
    hook = read_hook(source)
    key, value = structs.get("key"), structs.get("value")
    if value is None:
        raise GuestSyntaxError(
            "the program does not declare struct value", "1:1", "write for one struct value { u64 times; };"
        )
    words = [token.text for token in tokenize(source) if token.kind != "newline"]
    has_function = any(pair == (KEY_ENTRY, "(") for pair in itertools.pairwise(words))
    if has_function != (key is not None):
        what, remedy = f"{KEY_ENTRY} fills a key that is not declared", "declare struct key"
        if key is not None:
            what = "struct key is declared, but nothing fills it"
            remedy = f"define int {KEY_ENTRY}(struct event *e, struct key *k)"
        raise GuestSyntaxError(what, "1:1", remedy)
    _check_layout(key, value)
    program = EventProgram(source, hook, key, value)
    names = [column.name for column in program.columns]
    if twice := {name for name in names if names.count(name) > 1}:
        raise GuestSyntaxError(f"two columns would be called {min(twice)}", "struct value", "give it another name")
    return program


def _check_layout(key: Struct | None, value: Struct) -> None:
    for member in key.members if key else ():
        if member.of is not None or (member.count is not None and member.type != "u8"):
            raise GuestSyntaxError(
                f"{member.text!r} is not part of a key", "struct key", "a key has integers and texts, u8 name[n]"
            )
    if key is not None and key.size > MAX_KEY_BYTES:
        raise GuestSyntaxError(f"a key of {key.size} bytes is larger than {MAX_KEY_BYTES}", "struct key")
    for member in value.members:
        if member.of is not None or member.count is not None:
            raise GuestSyntaxError(f"{member.text!r} is not part of a value", "struct value", "a value has integers")
    if len(value.members) > MAX_VALUES:
        raise GuestSyntaxError(f"a value of {len(value.members)} fields has more than {MAX_VALUES}", "struct value")


def _column(member: Member) -> Column:
    if member.name.endswith("_ns"):
        return Column(member.name.removesuffix("_ns") + "_s", "seconds")
    return Column(member.name, "bytes" if member.name.endswith("bytes") else "count")


def _integer(data: bytes, member: Member, *, signed: bool) -> int:
    return int.from_bytes(data[member.offset : member.offset + member.size], "little", signed=signed)


def _key_cell(key: bytes, member: Member) -> Cell:
    if member.count is None:
        return _integer(key, member, signed=member.type in ("s8", "s16", "s32", "s64", "u64"))
    text = key[member.offset : member.offset + member.size]
    return text.partition(b"\0")[0].decode(errors="backslashreplace")


def _merged(values: list[bytes], member: Member) -> int | float:
    numbers = [_integer(value, member, signed=member.type.startswith("s")) for value in values]
    merged = max(numbers, default=0) if member.name.startswith("max_") else sum(numbers)
    merged = max(_LEAST, min(merged, _MOST))
    return merged / 1e9 if member.name.endswith("_ns") else merged
