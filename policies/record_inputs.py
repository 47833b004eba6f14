"""The inputs of a record task: the records, the first state, and what is to come back."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np

from runvisor.policies.dtypes import dtype_of
from runvisor.policies.errors import InvalidTask
from runvisor.policies.record_text import read
from runvisor.policies.structs import MAX_DEPTH
from runvisor.policies.values import Value

Records: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Part = Literal["indices", "mask", "records", "outputs"]
"""What a value may hold besides the count and the state."""
PARTS: Final[tuple[Part, ...]] = get_args(Part)

_KEYS: Final = ("records", "state", "dtype", "return")
_SHAPE: Final = "pass {'records': array}, and optionally 'state', 'return' and, for bytes, 'dtype'"
_DTYPE_REMEDY: Final = "give text like '<u4', or a list of (name, text) as in dtype.descr"
_CODE: Final = re.compile(r"[<>=|]?(\?|[biufS]\d{1,9}|[mM]8(\[\d{0,9}[A-Za-z]{1,7}\])?)")
"""The dtypes of fields as text: byte order, kind, size, and the unit of dates."""
_GAP: Final = re.compile(r"\|V(\d{1,9})")
"""How ``dtype.descr`` writes padding: an unnamed field of so many bytes."""
_MOST_FIELDS: Final = 4096
_MOST_BYTES: Final = 1 << 30
_MOST_ROW_BYTES: Final = 64 * 1024 * 1024
"""Of records that come as rows: these few bytes on the wire could stand for any number."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordInputs:
    """The checked inputs of a record task."""

    records: Records
    state: Mapping[str, Any]
    parts: tuple[Part, ...] = ()
    """What the value holds besides the count and the state, each once."""

    @property
    def collects(self) -> bool:
        """Whether it matters which records were selected, not only how many."""
        return bool(self.parts)

    @classmethod
    def of(cls, inputs: Value, source: str) -> RecordInputs:
        """Check a task's inputs.

        Args:
            inputs: The task's.
            source: The program; bytes and rows that come without a dtype are of its ``struct record``.

        Raises:
            InvalidTask: They are not of the shape that `runvisor.policies.records` names.
            GuestSyntaxError: The program had to be read for its struct, and cannot be.
        """
        if not isinstance(inputs, Mapping) or "records" not in inputs:
            raise InvalidTask("a record program needs records", "inputs", _SHAPE)
        unknown = sorted(str(key) for key in inputs if key not in _KEYS)
        if unknown:
            raise InvalidTask(f"a record program takes no input {unknown[0][:80]!r}", "inputs", _SHAPE)
        state = inputs.get("state")
        if state is not None and not isinstance(state, Mapping):
            raise InvalidTask("the state is not a mapping", "inputs['state']", "pass {field: value}")
        records = _records(inputs["records"], inputs.get("dtype"), source)
        return cls(records, state or {}, _parts(inputs.get("return")))


def _records(records: object, dtype: object, source: str) -> Records:
    """Return the records as an array of one dimension."""
    where = "inputs['records']"
    if isinstance(records, bytes | bytearray | memoryview | list | tuple):
        wanted = read_dtype(dtype) if dtype is not None else _declared(source)
        if isinstance(records, list | tuple):
            return _from_rows(records, wanted)
        data = memoryview(records).cast("B")
        if len(data) % wanted.itemsize:
            raise InvalidTask(
                f"{len(data)} bytes are not whole records of {wanted.itemsize}: {len(data) % wanted.itemsize} are left",
                where,
                "cut the bytes between records, or correct the dtype",
            )
        return np.frombuffer(data, wanted)
    if not isinstance(records, np.ndarray) or records.ndim != 1:
        raise InvalidTask("the records are not an array of one dimension", where, "pass a structured numpy array")
    if dtype is not None and read_dtype(dtype) != records.dtype:
        raise InvalidTask(
            f"the array is of dtype {records.dtype}, not of inputs['dtype']", where, "leave the dtype out"
        )
    return records


def _from_rows(rows: Sequence[object], dtype: np.dtype[Any]) -> Records:
    """Return the array of rows as JSON has them: lists of fields, or plain values."""
    if len(rows) * dtype.itemsize > _MOST_ROW_BYTES:
        raise InvalidTask(
            f"{len(rows)} rows of {dtype.itemsize} bytes are too many", "inputs['records']", "pass a numpy array"
        )
    made = np.zeros(len(rows), dtype)
    for number, row in enumerate(rows):
        try:
            made[number] = _row(row, dtype)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidTask(
                f"the row is not of dtype {dtype}: {error}", f"inputs['records'][{number}]", "pass a numpy array"
            ) from None
    return made


def _row(row: Any, dtype: np.dtype[Any]) -> Any:
    """Return a row as numpy takes it: a tuple for each structured dtype, and no fraction for an integer."""
    if dtype.names is not None:
        return tuple(_row(field, dtype[name]) for field, name in zip(row, dtype.names, strict=True))
    if dtype.subdtype is not None:
        base, (size, *inner) = dtype.subdtype
        items: list[Any] = list(row)
        if len(items) != size:
            raise ValueError(f"{len(items)} elements are not {size}")
        return [_row(item, np.dtype((base, tuple(inner)))) for item in items]
    number: Any = row
    return operator.index(number) if dtype.kind in "iu" else number


@functools.lru_cache(maxsize=64)
def _declared(source: str) -> np.dtype[Any]:
    """Return the dtype of the program's own ``struct record``."""
    structs, _ = read(source)
    written = structs.get("record")
    if written is None:
        raise InvalidTask(
            "the records are no array, and have no dtype",
            "inputs['records']",
            "pass a numpy array, or 'dtype', or write struct record in the program",
        )
    if written.size > _MOST_BYTES:
        raise _no_dtype(f"records of {written.size} bytes are none")
    return dtype_of(written)


def _parts(wanted: object) -> tuple[Part, ...]:
    names = [wanted] if isinstance(wanted, str) else [] if wanted is None else wanted
    where = "inputs['return']"
    if not isinstance(names, Sequence):
        raise InvalidTask("what to return is not a name or a list of names", where, f"pass {', '.join(PARTS)}")
    for name in names:
        if name not in PARTS:
            raise InvalidTask(f"a record program cannot return {str(name)[:80]!r}", where, f"pass {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in names)


def read_dtype(description: object, depth: int = 0) -> np.dtype[Any]:
    """Read the dtype that a caller gives for records of plain bytes.

    Args:
        description: Text like ``"<u4"``, or a list of ``(name, text)`` and ``(name, text, shape)`` as in
            ``dtype.descr``; never evaluated.
        depth: In how many dtypes it lies.

    Raises:
        InvalidTask: It is none.

    Example:
        >>> read_dtype([["id", "<u4"], ["xs", "<i2", [3]]]).itemsize
        10
    """
    if depth > MAX_DEPTH:
        raise _no_dtype(f"more than {MAX_DEPTH} dtypes lie inside each other")
    try:
        if isinstance(description, str):
            if _CODE.fullmatch(description) is None:
                raise _no_dtype(f"{description[:40]!r} is not the dtype of a field")
            return _bounded(np.dtype(description))
        return _bounded(_structured(description, depth))
    except (TypeError, ValueError, OverflowError) as error:
        raise _no_dtype(f"{str(description)[:60]} is not a dtype: {error}") from None


def _structured(description: object, depth: int) -> np.dtype[Any]:
    if not isinstance(description, list | tuple) or not 0 < len(description) <= _MOST_FIELDS:
        raise _no_dtype("the dtype is not text or a list of fields")
    names: list[str] = []
    formats: list[Any] = []
    offsets: list[int] = []
    end = 0
    for entry in description:
        name, kind, *shape = entry if isinstance(entry, list | tuple) else ("", "")
        if name == "" and isinstance(kind, str) and (gap := _GAP.fullmatch(kind)) and not shape:
            end += int(gap[1])
            continue
        if not isinstance(name, str) or not name or len(shape) > 1 or not all(map(_is_shape, shape)):
            raise _no_dtype(f"{str(entry)[:60]} is not a field")
        format_ = read_dtype(kind, depth + 1)
        if shape:
            format_ = np.dtype((format_, tuple(shape[0]) if isinstance(shape[0], list | tuple) else (shape[0],)))
        names.append(name)
        formats.append(format_)
        offsets.append(end)
        end += format_.itemsize
    if not names:
        raise _no_dtype("the dtype has no fields")
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": end})


def _bounded(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if not 0 < dtype.itemsize <= _MOST_BYTES:
        raise _no_dtype(f"records of {dtype.itemsize} bytes are none")
    return dtype


def _is_shape(shape: object) -> bool:
    sizes = shape if isinstance(shape, list | tuple) else [shape]
    return len(sizes) <= MAX_DEPTH and all(type(size) is int and 0 < size < 1 << 24 for size in sizes)


def _no_dtype(what: str) -> InvalidTask:
    return InvalidTask(what, "inputs['dtype']", _DTYPE_REMEDY)
