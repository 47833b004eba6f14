"""A short text of a value of any size, for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

from runvisor.policies.values import Value

MAX_CHARACTERS: Final = 4000
_MAX_ITEMS: Final = 20
_MAX_TEXT: Final = 400
_MAX_DEPTH: Final = 6


def preview(value: Value, *, max_characters: int = MAX_CHARACTERS) -> str:
    """Return the value as indented text, cut where it gets long; the cost does not grow with the value.

    Example:
        >>> print(preview({"n": 3, "rows": list(range(50))}))
        {
          'n': 3,
          'rows': [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ... 30 more]
        }
    """
    text = _text(value, 0)
    if len(text) > max_characters:
        return text[:max_characters] + f"\n... {len(text) - max_characters} characters more"
    return text


def _text(value: Value, depth: int) -> str:
    if isinstance(value, str):
        if len(value) <= _MAX_TEXT:
            return repr(value)
        return f"{value[:_MAX_TEXT]!r} ... {len(value) - _MAX_TEXT} characters more"
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _array(value)
    if isinstance(value, Mapping | list | tuple):
        if depth >= _MAX_DEPTH:
            return f"<{type(value).__name__} of {len(value)}>"
        return _mapping(value, depth) if isinstance(value, Mapping) else _list(value, depth)
    if isinstance(value, int) and value.bit_length() > 1000:
        return f"<integer of {value.bit_length()} bits>"
    return repr(value)[: _MAX_TEXT * 2]


def _array(value: Value) -> str:
    shape = " x ".join(map(str, value.shape)) or "scalar"
    if not value.size:
        return f"<array {shape}, {value.dtype}>"
    first = ", ".join(repr(item)[:80] for item in value.reshape(-1)[:8].tolist())
    return f"<array {shape}, {value.dtype}: {first}{', ...' if value.size > 8 else ''}>"


def _mapping(value: Mapping[object, Value], depth: int) -> str:
    if not value:
        return "{}"
    inner = "  " * (depth + 1)
    lines = [
        f"{inner}{_text(key, _MAX_DEPTH)}: {_text(item, depth + 1)}" for key, item in islice(value.items(), _MAX_ITEMS)
    ]
    if len(value) > _MAX_ITEMS:
        lines.append(f"{inner}... {len(value) - _MAX_ITEMS} more")
    return "{\n" + ",\n".join(lines) + "\n" + "  " * depth + "}"


def _list(value: list[Value] | tuple[Value, ...], depth: int) -> str:
    items = [_text(item, depth + 1) for item in islice(value, _MAX_ITEMS)]
    if len(value) > _MAX_ITEMS:
        items.append(f"... {len(value) - _MAX_ITEMS} more")
    if sum(map(len, items)) < 100 and not any("\n" in item for item in items):
        return f"[{', '.join(items)}]"
    inner = "  " * (depth + 1)
    return "[\n" + ",\n".join(inner + item for item in items) + "\n" + "  " * depth + "]"
