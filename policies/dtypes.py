"""numpy dtypes as C structs of integers: what a field becomes, and whether two layouts agree."""

from __future__ import annotations

from typing import Any

import numpy as np

from runvisor.policies.errors import InvalidTask
from runvisor.policies.structs import Struct, is_field_name, lay_out


def record_of(dtype: np.dtype[Any]) -> Struct:
    r"""Lay out ``struct record`` for the records of a dtype.

    Raises:
        InvalidTask: A field has a type or a name that C does not.

    Example:
        >>> record_of(np.dtype([("flag", "?"), ("price", "<f8"), ("tag", "S3")])).declaration()
        'struct record { u8 flag; u64 price; u8 tag[3]; };\n'
    """
    where = "inputs['records']"
    fields: list[tuple[str, str, int | None]] = []
    for name in dtype.names if dtype.names is not None else ("value",):
        member = dtype[name] if dtype.names is not None else dtype
        if not is_field_name(name):
            raise InvalidTask(f"{name!r} cannot be the name of a C field", where, "rename the field")
        fields.append((name, *_c_type(member, f"{where}[{name!r}]")))
    if not fields:
        raise InvalidTask("the records have no fields", where)
    return lay_out("record", ((kind, name, count) for name, kind, count in fields))


def _c_type(dtype: np.dtype[Any], where: str) -> tuple[str, int | None]:
    """Return the C type and element count of one field's dtype."""
    base, count = dtype, None
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        if len(shape) != 1 or not shape[0]:
            raise InvalidTask(f"an array field of shape {shape} cannot be a C field", where, "use one dimension")
        count = shape[0]
    if base.byteorder == ">":
        raise InvalidTask(f"dtype {base} is big-endian", where, "pass records.astype(records.dtype.newbyteorder('<'))")
    if base.kind == "S" and count is None and base.itemsize:
        return "u8", base.itemsize
    sign = {"u": "u", "i": "s", "b": "u", "f": "u", "M": "s", "m": "s"}.get(base.kind)
    if sign is None or base.itemsize not in (1, 2, 4, 8):
        raise InvalidTask(
            f"dtype {base} cannot be a C field", where, "use integers, floats, bool, datetime64 or bytes (S<n>)"
        )
    return f"{sign}{8 * base.itemsize}", count


def check_same(written: Struct, record: Struct, dtype: np.dtype[Any]) -> None:
    """Compare the author's ``struct record`` with that of the records, field by field.

    Args:
        written: What the author declared.
        record: What `record_of` makes of the dtype.
        dtype: The records' dtype.

    Raises:
        InvalidTask: Another name, type, order, offset or size; names the first.
    """
    where = "inputs['records']"
    for index, (mine, theirs) in enumerate(zip(written.members, record.members, strict=False), 1):
        if (mine.name, mine.type, mine.count) != (theirs.name, theirs.type, theirs.count):
            wanted, actual = (f"{m.type} {m.name}{f'[{m.count}]' if m.count else ''}" for m in (theirs, mine))
            raise InvalidTask(
                f"field {index} of struct record is {actual!r}, not the records' {wanted!r}",
                where,
                "declare it so, or leave struct record out",
            )
    if len(written.members) != len(record.members):
        raise InvalidTask(
            f"struct record has {len(written.members)} fields, the records have {len(record.members)}",
            where,
            "declare the fields of the dtype, or leave struct record out",
        )
    if not has_layout(dtype, written):
        offsets = _offsets(dtype)
        moved = next((m for m in written.members if offsets.get(m.name, m.offset) != m.offset), None)
        what = f"struct record has {written.size} bytes, the dtype has {dtype.itemsize}"
        if moved is not None:
            place = f"byte {moved.offset} of struct record, but at {offsets[moved.name]} of the dtype"
            what = f"field {moved.name!r} is at {place}"
        raise InvalidTask(what, where, "make the dtype with align=True, or leave struct record out")


def has_layout(dtype: np.dtype[Any], record: Struct) -> bool:
    """Say whether items of a dtype have the bytes of a struct with the same fields."""
    if dtype.itemsize != record.size:
        return False
    offsets = _offsets(dtype)
    return all(offsets.get(member.name, 0) == member.offset for member in record.members)


def _offsets(dtype: np.dtype[Any]) -> dict[str, int]:
    return {str(name): entry[1] for name, entry in (dtype.fields or {}).items()}


def laid_out(dtype: np.dtype[Any], record: Struct) -> np.dtype[Any]:
    """Return the dtype with the same fields at a struct's offsets."""
    names = [member.name for member in record.members]
    formats = [dtype] if dtype.names is None else [dtype[name] for name in names]
    offsets = [member.offset for member in record.members]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": record.size})
