"""References: how one step names the value of another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from runvisor.policies.errors import InvalidPlan
from runvisor.policies.values import Value

ITEM: Final = "item"
"""The name, instead of a step's, of the element that one run of a ``for_each`` step works on."""

ID_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
_LONG: Final = re.compile(rf"steps\.(?P<step>{ID_PATTERN})\.value(?P<path>(\.[A-Za-z0-9_-]+)*)")
_SHORT: Final = re.compile(rf"(?P<step>{ID_PATTERN})(?P<path>(\.[A-Za-z0-9_-]+)*)")


@dataclass(frozen=True, slots=True)
class Reference:
    """The value of a step, or a part of it.

    Written ``steps.load.value``, ``steps.load.value.rows.0`` or, short, ``load``
    and ``load.rows.0``. In a step with ``for_each``, ``item`` is the element at hand.

    Example:
        >>> Reference.parse("steps.load.value.rows.0")
        Reference(step='load', path=('rows', '0'))
        >>> Reference.parse("load.rows").resolve({"load": {"rows": [1, 2]}})
        [1, 2]
    """

    step: str
    """A step's id, or `ITEM`."""
    path: tuple[str, ...] = ()
    """Keys of dicts and indices of lists, from the value inwards."""

    @classmethod
    def parse(cls, text: str | Reference) -> Reference:
        """Read a reference.

        Raises:
            InvalidPlan: The text is not one.
        """
        if isinstance(text, Reference):
            return text
        match = None
        if isinstance(text, str):
            match = _LONG.fullmatch(text) if text.startswith("steps.") else _SHORT.fullmatch(text)
        if match is None:
            raise InvalidPlan(
                f"{text!r} does not name a step's value", "", "write a step's id, or steps.ID.value with .key after it"
            )
        return cls(match["step"], tuple(match["path"].split(".")[1:]))

    def __str__(self) -> str:
        if self.step == ITEM:
            return ".".join((ITEM, *self.path))
        return ".".join(("steps", self.step, "value", *self.path))

    def resolve(self, values: Mapping[str, Value]) -> Value:
        """Return what is referred to.

        Args:
            values: Values by step id (or by `ITEM`).

        Raises:
            InvalidPlan: The value has no such part; says what it has instead.
        """
        value = values[self.step]
        for depth, key in enumerate(self.path):
            if isinstance(value, Mapping) and key in value:
                value = value[key]
            elif isinstance(value, list | tuple) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                parent = Reference(self.step, self.path[:depth])
                raise InvalidPlan(f"{parent} has no part {key!r}", str(self), _what_it_has(value))
        return value


def _what_it_has(value: Value) -> str:
    if isinstance(value, Mapping):
        return f"it has {', '.join(str(key)[:40] for key in list(value)[:8]) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"it is a list of {len(value)}"
    return f"it is of type {type(value).__name__}"
