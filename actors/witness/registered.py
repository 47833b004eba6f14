"""Which sandboxes are counted, and where: what pools and the witness tell the programs in the kernel."""

from __future__ import annotations

import contextlib
import secrets
import struct
from collections.abc import Iterable, Iterator

from runvisor.actors.ebpf.maps import Map, MapKind


class Registered:
    """The ids of the sandboxes that are counted, and the numbers of their accounts.

    Each change is told to all cores; what a program already does is waited for by
    `runvisor.actors.witness.accounts.settle`.

    Args:
        ids_fd: The map of ids; taken over.
        change_fd: The map of the number that says that it has changed; taken over.
    """

    def __init__(self, ids_fd: int, change_fd: int) -> None:
        self._ids = Map.received(ids_fd, MapKind.HASH, 8, 4)
        self._change = Map.received(change_fd, MapKind.ARRAY, 4, 8)

    def add(self, identity: int, number: int) -> None:
        """Have a sandbox counted.

        Raises:
            OSError: There is no room.
        """
        self._ids.update(struct.pack("=Q", identity), struct.pack("=I", number))
        self._tell()

    def remove(self, sandboxes: Iterable[tuple[int, int]]) -> None:
        """Have sandboxes counted no more, those that still have the account of that number."""
        for identity, number in sandboxes:
            key = struct.pack("=Q", identity)
            with contextlib.suppress(OSError):
                if self._ids.lookup(key) == struct.pack("=I", number):  # else it has its next account already
                    self._ids.delete(key)
        self._tell()

    def items(self) -> Iterator[tuple[int, int]]:
        """Yield the id of each sandbox, and the number of its account."""
        for key, value in self._ids.items():
            yield struct.unpack("=Q", key)[0], struct.unpack("=I", value)[0]

    def close(self) -> None:
        """Give back the descriptors; closing twice is fine."""
        self._ids.close()
        self._change.close()

    def _tell(self) -> None:
        # By chance, so that no two processes ever put the same number; never 0, which a core puts for itself.
        self._change.update(bytes(4), struct.pack("=Q", secrets.randbits(63) + 1))
