"""An instance that is made while nobody waits, for the next run of the same image on the same lane.

Only images have one: what runs while it is made is ours, and the guest that gets
it belongs to the principal whose engine this is. It is as fresh as one made for
the request, and gets the request's limits before the guest's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runvisor.actors.wasm.fastpath import Store


@dataclass(frozen=True, slots=True)
class Standing:
    """An instance that has run nothing but its start."""

    store: Store
    instance: Any
    """What its arm knows it by."""


class Standby:
    """At most one instance, waiting in a lane; used by the lane's thread alone.

    Example:
        >>> standby = Standby()
        >>> standby.take("quickjs") is None
        True
    """

    def __init__(self) -> None:
        self._name = ""
        self._standing: Standing | None = None
        self._make: Callable[[], Standing | None] | None = None

    def take(self, name: str) -> Standing | None:
        """Return the instance of an image, if one waits; its store is then the caller's to close."""
        if name != self._name:
            return None
        standing, self._standing = self._standing, None
        return standing

    def order(self, name: str, make: Callable[[], Standing | None]) -> None:
        """Have an instance of an image made when the present request is answered, in place of any that waits.

        Args:
            name: What to take it by.
            make: Makes it; None if it cannot be made.
        """
        if name != self._name:
            self.close()
        self._name, self._make = name, make

    def fill(self) -> None:
        """Make what was ordered."""
        make, self._make = self._make, None
        if make is not None and self._standing is None:
            self._standing = make()

    def close(self) -> None:
        """Delete what waits; closing twice is fine."""
        standing, self._standing = self._standing, None
        if standing is not None:
            standing.store.close()
