"""numpy dtypes as C structs of integers and back, and whether two layouts agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from runvisor.policies.errors import InvalidTask
from runvisor.policies.structs import MAX_DEPTH, Member, Struct, is_field_name, lay_out


def record_of(dtype: np.dtype[Any]) -> Struct:
    r"""Lay out ``struct record`` for the records of a dtype.

    A structured field ``at`` becomes a struct of its own, ``struct record_at``; an array
    field of several dimensions becomes one of one dimension, in C order.

    Raises:
        InvalidTask: A field has a type or a name that C does not.

    Example:
        >>> record_of(np.dtype([("flag", "?"), ("price", "<f8"), ("tag", "S3")])).declaration()
        'struct record { u8 flag; u64 price; u8 tag[3]; };\n'
    """
    record = _struct_of(dtype, "record", "inputs['records']", 0)
    tags = [part.name for part in record.parts()]
    if len(set(tags)) < len(tags):  # such as of the fields a.b and a_b
        twice = next(tag for tag in tags if tags.count(tag) > 1)
        raise InvalidTask(f"two fields would both be struct {twice}", "inputs['records']", "rename one")
    return record


def _struct_of(dtype: np.dtype[Any], tag: str, where: str, depth: int) -> Struct:
    if depth > MAX_DEPTH:
        raise InvalidTask(f"more than {MAX_DEPTH} dtypes lie inside each other", where, "flatten them")
    fields: list[tuple[str | Struct, str, int | None]] = []
    for name in dtype.names if dtype.names is not None else ("value",):
        member = dtype[name] if dtype.names is not None else dtype
        if not is_field_name(name):
            raise InvalidTask(f"{name!r} cannot be the name of a C field", where, "rename the field")
        kind, count = _c_type(member, f"{tag}_{name}", f"{where}[{name!r}]", depth)
        fields.append((kind, name, count))
    if not fields:
        raise InvalidTask("the records have no fields", where)
    return lay_out(tag, fields)


def _c_type(dtype: np.dtype[Any], tag: str, where: str, depth: int) -> tuple[str | Struct, int | None]:
    """Return the C type and element count of one field's dtype."""
    base, count = dtype, None
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        count = math.prod(shape)
        if not count:
            raise InvalidTask(f"an array field of shape {shape} cannot be a C field", where, "leave it out")
    if base.names is not None:
        return _struct_of(base, tag, where, depth + 1), count
    if base.byteorder == ">":
        raise InvalidTask(f"dtype {base} is big-endian", where, "pass records.astype(records.dtype.newbyteorder('<'))")
    if base.kind == "S" and base.itemsize:
        return "u8", base.itemsize * (count or 1)
    sign = {"u": "u", "i": "s", "b": "u", "f": "u", "M": "s", "m": "s"}.get(base.kind)
    if sign is None or base.itemsize not in (1, 2, 4, 8):
        raise InvalidTask(
            f"dtype {base} cannot be a C field", where, "use integers, floats, bool, datetime64 or bytes (S<n>)"
        )
    return f"{sign}{8 * base.itemsize}", count


def dtype_of(struct: Struct) -> np.dtype[Any]:
    """Return the structured dtype whose items have the layout of a struct, padding included.

    Example:
        >>> dtype_of(lay_out("output", [("u8", "kind", None), ("s32", "at", 2)])).fields["at"]
        (dtype(('<i4', (2,))), 4)
    """
    members = struct.members
    return np.dtype(
        {
            "names": [member.name for member in members],
            "formats": [
                element_of(member) if member.count is None else (element_of(member), (member.count,))
                for member in members
            ],
            "offsets": [member.offset for member in members],
            "itemsize": struct.size,
        }
    )


def element_of(member: Member) -> np.dtype[Any]:
    """Return the dtype of one element of a member."""
    return dtype_of(member.of) if member.of else np.dtype(f"<{'u' if member.type[0] == 'u' else 'i'}{member.width}")


def has_gaps(dtype: np.dtype[Any]) -> bool:
    """Say whether items of a dtype have bytes that belong to no field."""
    return _field_bytes(dtype) != dtype.itemsize


def _field_bytes(dtype: np.dtype[Any]) -> int:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return _field_bytes(base) * math.prod(shape)
    return dtype.itemsize if dtype.names is None else sum(_field_bytes(dtype[name]) for name in dtype.names)


def copy_fields(source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> None:
    """Copy items field by field, and nothing of what lies between the fields.

    Args:
        source: Of a dtype with gaps.
        target: Of the same shape and dtype, zeroed.
    """
    if source.dtype.names is None:
        target[...] = source
        return
    for name in source.dtype.names:
        copy_fields(source[name], target[name])


def check_same(written: Struct, record: Struct, dtype: np.dtype[Any]) -> None:
    """Compare the author's ``struct record`` with that of the records, field by field.

    Args:
        written: What the author declared.
        record: What `record_of` makes of the dtype.
        dtype: The records' dtype.

    Raises:
        InvalidTask: Another name, type, order, offset or size; names the first field that differs, with
            what it is and where it lies on each side.
    """
    _check_fields(written, record, dtype, "")


def _check_fields(written: Struct, record: Struct, dtype: np.dtype[Any], path: str) -> None:
    where, leave_out = "inputs['records']", "or leave struct record out"
    numpy_fields = _fields(dtype) or {record.members[0].name: (dtype, 0)}
    for mine, theirs in zip(written.members, record.members, strict=False):
        format_, offset = numpy_fields[theirs.name][:2]
        name = f"{path}{mine.name}"
        in_c = f"'{mine.text}' at byte {mine.offset} of struct {written.name}"
        in_numpy = f"{_words(format_)} {theirs.name!r} at byte {offset} of the records' dtype"
        details = {
            "field": name,
            "c": {"declared": mine.text, "offset": mine.offset, "size": mine.size},
            "numpy": {"name": theirs.name, "dtype": _words(format_), "offset": offset, "size": format_.itemsize},
        }
        if not _is_same_kind(mine, theirs):
            raise InvalidTask(
                f"field {name!r} differs: {in_c}, {in_numpy}",
                where,
                f"declare it '{theirs.text}' there, {leave_out}",
                details,
            )
        if mine.offset != offset:
            raise InvalidTask(
                f"field {name!r} lies elsewhere: {in_c}, {in_numpy}",
                where,
                f"make the dtype with align=True, {leave_out}",
                details,
            )
        if mine.of is not None and theirs.of is not None:
            base = format_.subdtype[0] if format_.subdtype is not None else format_
            _check_fields(mine.of, theirs.of, base, f"{name}.")
    if len(written.members) != len(record.members):
        longer = max(written.members, record.members, key=len)
        first = longer[min(len(written.members), len(record.members))]
        raise InvalidTask(
            f"struct {written.name} has {len(written.members)} fields, the records' dtype has {len(record.members)}: "
            f"{path}{first.name} is in one of them only",
            where,
            f"declare the fields of the dtype, {leave_out}",
            {"field": f"{path}{first.name}"},
        )
    if written.size != dtype.itemsize:
        last = written.members[-1]
        raise InvalidTask(
            f"struct {written.name} has {written.size} bytes, the dtype has {dtype.itemsize}: "
            f"behind {path}{last.name!s} C pads to a multiple of {written.alignment}",
            where,
            f"make the dtype with align=True, {leave_out}",
            {"field": f"{path}{last.name}", "c": {"size": written.size}, "numpy": {"size": dtype.itemsize}},
        )


def _is_same_kind(mine: Member, theirs: Member) -> bool:
    if (mine.name, mine.count) != (theirs.name, theirs.count):
        return False
    return mine.type == theirs.type if mine.of is None or theirs.of is None else True


def _words(dtype: np.dtype[Any]) -> str:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return f"{_words(base)}{list(shape)}"
    return dtype.str if dtype.names is None else "a structured"


def _fields(dtype: np.dtype[Any]) -> Mapping[str, Any]:
    """Return dtype, offset and perhaps more by field name; nothing for a plain dtype."""
    fields: Any = dtype.fields
    return fields or {}


def has_layout(dtype: np.dtype[Any], record: Struct) -> bool:
    """Say whether items of a dtype have the bytes of a struct with the same fields."""
    if dtype.itemsize != record.size:
        return False
    fields = _fields(dtype)
    if not fields:
        return True
    for member in record.members:
        format_, offset = fields[member.name][:2]
        base = format_.subdtype[0] if format_.subdtype is not None else format_
        if offset != member.offset or (member.of is not None and not has_layout(base, member.of)):
            return False
    return True


def laid_out(dtype: np.dtype[Any], record: Struct) -> np.dtype[Any]:
    """Return the dtype with the same fields at a struct's offsets."""
    names = [member.name for member in record.members]
    formats: list[Any] = []
    for member in record.members:
        format_ = dtype if dtype.names is None else dtype[member.name]
        if member.of is not None:
            base, shape = format_.subdtype if format_.subdtype is not None else (format_, ())
            format_ = np.dtype((laid_out(base, member.of), shape))
        formats.append(format_)
    offsets = [member.offset for member in record.members]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": record.size})
