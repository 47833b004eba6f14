"""What may be observed of running processes, what is asked for, and the table that comes of it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.values import is_number

BUILT_INS: Final[Mapping[str, str]] = {
    "syscalls": "system calls by name: how many, how many failed, how long they took",
    "sched": "how long threads that could run waited for a core, as a histogram",
    "files": "files opened: path, how, with what result",
    "io": "bytes read and written, by descriptor",
}
"""The observations that ship with runvisor."""
PROGRAM: Final = "program"
"""Observing by the author's own program."""
MAX_PROGRAM_CHARACTERS: Final = 65536
MIN_DURATION_S: Final = 0.01
MAX_DURATION_S: Final = 3600.0
_MAX_PID: Final = 1 << 22
"""PID_MAX_LIMIT of the kernel; see proc_sys_kernel(5)."""
_MAX_COLUMNS: Final = 64
_MAX_ROWS: Final = 65536
_MAX_TEXT: Final = 4096

ColumnKind = Literal["text", "id", "count", "bytes", "seconds"]
_KINDS: Final = ("text", "id", "count", "bytes", "seconds")
_DTYPES: Final = {"id": "<i8", "count": "<i8", "bytes": "<i8", "seconds": "<f8"}
Ended = Literal["time", "target", "stopped"]
_ENDS: Final = ("time", "target", "stopped")
Cell = str | int | float


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    kind: ColumnKind


@dataclass(frozen=True, slots=True)
class ObservationRequest:
    """What to observe, of whom, for how long.

    Raises:
        ConfigError: It names nothing that can be observed.

    Example:
        >>> ObservationRequest("syscals", 1, 5.0)
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.ConfigError: there is no observation named 'syscals' (at what); \
use syscalls, sched, files or io
    """

    what: str
    """One of `BUILT_INS`, or `PROGRAM`."""
    pid: int
    """The process; with all its threads."""
    duration_s: float
    """It ends then, or when nothing of the target is left, or when it is called off."""
    follow: bool = True
    """Also the processes that it has started or starts meanwhile, and those that they start."""
    program: str | None = None
    """The author's text, if `what` is `PROGRAM`; see `runvisor.policies.event_programs`."""

    def __post_init__(self) -> None:
        if self.what == PROGRAM and self.program is not None:
            if not isinstance(self.program, str) or len(self.program) > MAX_PROGRAM_CHARACTERS:
                raise ConfigError(
                    f"the program is no text of up to {MAX_PROGRAM_CHARACTERS} characters", "program", "make it shorter"
                )
        elif not isinstance(self.what, str) or self.what not in BUILT_INS:
            names = list(BUILT_INS)
            raise ConfigError(
                f"there is no observation named {str(self.what)[:80]!r}",
                "what",
                f"use {', '.join(names[:-1])} or {names[-1]}",
            )
        elif self.program is not None:
            raise ConfigError("observe either what is built in or by a program", "program", "leave out one of them")
        if isinstance(self.pid, bool) or not isinstance(self.pid, int) or not 0 < self.pid <= _MAX_PID:
            raise ConfigError(f"{str(self.pid)[:80]} is no process id", "pid", "give the number of a running process")
        if not is_number(self.duration_s) or not MIN_DURATION_S <= self.duration_s <= MAX_DURATION_S:
            raise ConfigError(
                f"{str(self.duration_s)[:80]} s cannot be observed",
                "duration_s",
                f"give {MIN_DURATION_S:g} to {MAX_DURATION_S:g} seconds",
            )
        if not isinstance(self.follow, bool):
            raise ConfigError("follow is neither true nor false", "follow")

    def to_wire(self) -> dict[str, Any]:
        """Return plain data for `from_wire`."""
        data = {"what": self.what, "pid": self.pid, "duration_s": self.duration_s, "follow": self.follow}
        return data if self.program is None else {**data, "program": self.program}

    @classmethod
    def from_wire(cls, data: object) -> ObservationRequest:
        """Read what `to_wire` returned.

        Raises:
            ProtocolError: It is something else.
            ConfigError: It names nothing that can be observed.
        """
        if not isinstance(data, dict) or set(data) - {"program"} != {"what", "pid", "duration_s", "follow"}:
            raise ProtocolError("the request holds no observation", "observation")
        return cls(**data)


@dataclass(frozen=True, slots=True)
class ObservedTable:
    """What was observed: a row for each thing that was told apart.

    Its texts are paths and names that the observed processes chose: show them as
    hostile text.

    Example:
        >>> table = ObservedTable(
        ...     "syscalls", (Column("syscall", "text"), Column("calls", "count")), (("read", 3),), 42, 1.0
        ... )
        >>> table.to_dicts(), table.column("calls")
        ([{'syscall': 'read', 'calls': 3}], [3])
        >>> table.to_numpy()
        array([('read', 3)], dtype=[('syscall', '<U4'), ('calls', '<i8')])
    """

    what: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    pid: int
    """The process that was observed."""
    duration_s: float
    """How long it really was."""
    ended: Ended = "time"
    """Why: its time was over, nothing of the target was left, or it was called off."""
    lost: int = 0
    """Events that found a full table and are not in it."""

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Cell]]:
        return iter(self.to_dicts())

    def column(self, name: str) -> list[Cell]:
        """Return one column, by name.

        Raises:
            KeyError: There is none of that name.
        """
        index = {column.name: number for number, column in enumerate(self.columns)}[name]
        return [row[index] for row in self.rows]

    def to_dicts(self) -> list[dict[str, Cell]]:
        """Return one dict per row."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    def to_numpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Return a structured array, with one field per column."""
        fields: list[tuple[str, str]] = []
        for column in self.columns:
            longest = max((len(str(cell)) for cell in self.column(column.name)), default=1)
            fields.append((column.name, _DTYPES.get(column.kind, f"<U{max(1, longest)}")))
        return np.array(list(self.rows), dtype=fields)

    def bars(self) -> list[tuple[str, float]]:
        """Return what a chart of it shows: a label and a length for each row."""
        labels = [number for number, column in enumerate(self.columns) if column.kind in ("text", "id")]
        if self.is_histogram:
            return [(f"{short_time(row[0])} to {short_time(row[1])}", float(row[2])) for row in self.rows]
        length = self._length()
        return [(" ".join(str(row[number]) for number in labels), float(row[length])) for row in self.rows]

    @property
    def is_histogram(self) -> bool:
        """Whether its rows are buckets, in order and without gaps."""
        return self.what == "sched"

    @property
    def bar_name(self) -> str:
        """The name of the column that a chart shows."""
        return "waits" if self.is_histogram else self.columns[self._length()].name

    @property
    def bar_kind(self) -> ColumnKind:
        """The kind of that column."""
        return next(column.kind for column in self.columns if column.name == self.bar_name)

    def to_document(self) -> dict[str, Any]:
        """Return it as one JSON document."""
        return {
            "what": self.what,
            "pid": self.pid,
            "duration_s": self.duration_s,
            "ended": self.ended,
            "lost": self.lost,
            "rows": self.to_dicts(),
        }

    def to_wire(self) -> dict[str, Any]:
        """Return plain data for `from_wire`."""
        return {
            "what": self.what,
            "columns": [[column.name, column.kind] for column in self.columns],
            "rows": [list(row) for row in self.rows],
            "pid": self.pid,
            "duration_s": self.duration_s,
            "ended": self.ended,
            "lost": self.lost,
        }

    @classmethod
    def from_wire(cls, data: object) -> ObservedTable:
        """Read what `to_wire` returned, believing nothing.

        Raises:
            ProtocolError: It is something else.
        """
        try:
            return _table(data)
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"not a table of an observation: {error}", "observation") from None

    def _repr_html_(self) -> str:
        """Show it in a notebook, every text escaped."""
        head = "".join(f"<th>{html.escape(column.name)}</th>" for column in self.columns)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td>{html.escape(shown(cell, column.kind))}</td>"
                for cell, column in zip(row, self.columns, strict=True)
            )
            + "</tr>"
            for row in self.rows
        )
        title = f"{self.what} of process {self.pid}, {short_time(self.duration_s)}"
        return f"<table><caption>{html.escape(title)}</caption><tr>{head}</tr>{body}</table>"

    def _length(self) -> int:
        """Return the number of the column that a chart shows: times before bytes before counts."""
        order = {"seconds": 0, "bytes": 1, "count": 2}
        numbers = [number for number, column in enumerate(self.columns) if column.kind in order]
        return min(numbers, key=lambda number: order[self.columns[number].kind], default=0)


def short_time(seconds: float | str) -> str:
    """Return a time with its unit, to three digits.

    Example:
        >>> short_time(0.0000123), short_time(2.5), short_time(0)
        ('12.3 us', '2.5 s', '0 s')
    """
    value = float(seconds)
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return "0 s"


def shown(cell: Cell, kind: ColumnKind) -> str:
    """Return a cell as people read it.

    Example:
        >>> shown(3 * 2**20, "bytes"), shown(1234567, "count"), shown(0.0015, "seconds"), shown("/etc", "text")
        ('3.0 MiB', '1,234,567', '1.5 ms', '/etc')
    """
    if kind == "seconds":
        return short_time(cell)
    if kind == "count":
        return f"{int(cell):,}"
    if kind == "bytes":
        size, unit = float(cell), 0
        while size >= 1024 and unit < 4:
            size, unit = size / 1024, unit + 1
        return f"{int(size)} B" if unit == 0 else f"{size:.1f} {'KMGT'[unit - 1]}iB"
    return str(cell)


def _table(data: object) -> ObservedTable:
    if not isinstance(data, dict):
        raise ValueError("no mapping")
    columns = tuple(Column(_text(name), _kind(kind)) for name, kind in _list(data["columns"], _MAX_COLUMNS))
    rows = tuple(_row(row, columns) for row in _list(data["rows"], _MAX_ROWS))
    if data["ended"] not in _ENDS:
        raise ValueError("it did not end")
    return ObservedTable(
        _text(data["what"]),
        columns,
        rows,
        int(_number(data["pid"])),
        float(_number(data["duration_s"])),
        data["ended"],
        int(_number(data["lost"])),
    )


def _row(row: object, columns: Sequence[Column]) -> tuple[Cell, ...]:
    cells = _list(row, len(columns))
    if len(cells) != len(columns):
        raise ValueError("a row is short")
    return tuple(
        _text(cell) if column.kind == "text" else _number(cell) for cell, column in zip(cells, columns, strict=True)
    )


def _list(value: object, most: int) -> list[Any]:
    if not isinstance(value, list | tuple) or len(value) > most:
        raise ValueError("no list, or one too long")
    return list(value)


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        raise ValueError("no text, or one too long")
    return value


def _kind(value: object) -> ColumnKind:
    for kind in _KINDS:
        if value == kind:
            return kind
    raise ValueError("no kind of column")


def _number(value: object) -> int | float:
    if not isinstance(value, int | float) or not is_number(value) or not -(2**63) <= value < 2**63:
        raise ValueError("no number")
    return value
