"""A bound on what msgpack of a stranger may come to in memory while it is decoded."""

from __future__ import annotations

from typing import Any, Final

from runvisor.policies.errors import ProtocolError

_CONTAINER_BYTES: Final = 64
_ELEMENT_BYTES: Final = 40
_ENTRY_BYTES: Final = 120
"""About what a list or dict, an element of a list with its pointer, and an entry of a dict take."""


class DecodingBudget:
    """Counts what lists and dicts cost as they are built, and stops the one that is too many.

    Args:
        max_bytes: About how much memory they may come to.

    Attributes:
        options: For ``msgpack.unpackb``; one decoding after the other counts against the same bound.

    Example:
        >>> import msgpack
        >>> msgpack.unpackb(msgpack.packb([[]] * 200), **DecodingBudget(10_000).options)
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.ProtocolError: it holds too many values (at value); \
leave it as a numpy array, or as a file in /out
    """

    def __init__(self, max_bytes: int) -> None:
        self._left = max_bytes
        self.options: dict[str, Any] = {
            "list_hook": self._count_list,
            "object_hook": self._count_dict,
            "max_array_len": max_bytes // _ELEMENT_BYTES,
            "max_map_len": max_bytes // _ENTRY_BYTES,
        }

    def _count_list(self, value: list[Any]) -> list[Any]:
        self._spend(_CONTAINER_BYTES + _ELEMENT_BYTES * len(value))
        return value

    def _count_dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        self._spend(_CONTAINER_BYTES + _ENTRY_BYTES * len(value))
        return value

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise ProtocolError("it holds too many values", "value", "leave it as a numpy array, or as a file in /out")
