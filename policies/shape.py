"""The shape of a value: how deep it is nested, and whether its dict keys can be packed."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Iterable
from typing import Any, Final

import msgpack

MAX_DEPTH: Final = 200
"""Lists and dicts in one another."""
CONTAINERS: Final = (dict, list, tuple)
LEAVES: Final = frozenset((bool, int, float, str, bytes, type(None)))
_KEYS: Final = (str, int, float, bytes, type(None))
_PLAIN_KEYS: Final = frozenset((bool, *_KEYS))
_MANY: Final = 64


def is_odd(value: Any) -> bool:
    """Say whether a value is nested too deep, or holds dict keys of other than plain types.

    msgpack packs a tuple as a key, which nobody can unpack; it has no hook for
    keys. Breadth first and by sets of types, so that flat data costs one pass in C.

    Example:
        >>> is_odd({"a": [1, {2: b"x"}]}), is_odd({(1, 2): 3})
        (False, True)
    """
    level: list[Any] = [value] if isinstance(value, CONTAINERS) else []
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return False
        below: list[Any] = []
        for container in level:
            items = container
            if isinstance(container, dict):
                if not _PLAIN_KEYS.issuperset(map(type, container)) and not are_keys(container):
                    return True
                items = container.values()
            if not LEAVES.issuperset(map(type, items)):
                below += [item for item in items if isinstance(item, CONTAINERS)]
        level = below
    return True


def are_keys(keys: Iterable[object]) -> bool:
    """Say whether all may be keys: also numpy's scalars, as counting with numpy yields them."""
    numpy = sys.modules.get("numpy")
    kinds = _KEYS if numpy is None else (*_KEYS, numpy.generic)
    return all(isinstance(key, kinds) for key in keys)


def is_too_deep(value: Any) -> bool:
    """Say whether a value with plain keys is nested too deep.

    A few containers are looked at one by one; many are packed once more, inside
    as many lists as leave `MAX_DEPTH` of what the packer takes.

    Example:
        >>> rows = [{"id": n, "tags": ["a"]} for n in range(1000)]
        >>> deep = rows
        >>> for _ in range(MAX_DEPTH):
        ...     deep = [deep]
        >>> is_too_deep(rows), is_too_deep(deep)
        (False, True)
    """
    level: list[Any] = [value] if isinstance(value, CONTAINERS) else []
    for _ in range(MAX_DEPTH + 1):
        if not level:
            return False
        if len(level) > _MANY:
            return not _packs_at_depth(value) and is_odd(value)
        below: list[Any] = []
        for container in level:
            items = container.values() if isinstance(container, dict) else container
            if not LEAVES.issuperset(map(type, items)):
                below += [item for item in items if isinstance(item, CONTAINERS)]
        level = below
    return True


def _packs_at_depth(value: Any) -> bool:
    return _packs(_nested(value, _PACKER_DEPTH - MAX_DEPTH))


def _nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _packs(value: Any) -> bool:
    try:
        msgpack.packb(value, default=lambda _: None)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return False
    return True


def _packer_depth() -> int:
    """Return how many containers in one another msgpack packs; its versions differ."""
    for depth in (1024, 511):  # those known: each further try costs a millisecond
        if _packs(_nested(None, depth)) and not _packs(_nested(None, depth + 1)):
            return depth
    depths = range(MAX_DEPTH, 2048)
    return depths[bisect.bisect_left(depths, x=True, key=lambda depth: not _packs(_nested(None, depth))) - 1]


_PACKER_DEPTH: Final = _packer_depth()
