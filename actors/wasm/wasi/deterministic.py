"""Clocks and chance that are the same in every run."""

from __future__ import annotations

import hashlib
from typing import Final

from runvisor.actors.wasm.wasi.abi import U64
from runvisor.actors.wasm.wasi.ambient import MONOTONIC, PROCESS_CPU, REALTIME, THREAD_CPU

_BEGINNING_NS: Final = {REALTIME: 946_684_800_000_000_000, MONOTONIC: 0, PROCESS_CPU: 0, THREAD_CPU: 0}
"""The first instant of 2000 (UTC)."""
_STEP_NS: Final = 1_000_000
_SEED: Final = b"runvisor deterministic"


class Deterministic:
    """What one deterministic run sees in place of the host's clocks and random bytes.

    Each look at any clock finds that a millisecond has passed, so that a program that
    waits for one gets on; sleeping takes no time. Random bytes are SHA-256 of a fixed
    seed and a counter: as good as any, except that everybody knows them.

    Example:
        >>> first, second = Deterministic(), Deterministic()
        >>> first.now_ns(0) == second.now_ns(0), first.random_bytes(40) == second.random_bytes(40)
        (True, True)
        >>> first.now_ns(1) - first.now_ns(1), first.random_bytes(8) == first.random_bytes(8)
        (-1000000, False)
    """

    def __init__(self) -> None:
        self._elapsed_ns = 0
        self._blocks = 0

    def now_ns(self, clock: int) -> int:
        """See `Ambient.now_ns`."""
        now = _BEGINNING_NS[clock] + self._elapsed_ns
        self._elapsed_ns += _STEP_NS
        return now

    def resolution_ns(self, clock: int) -> int:
        """See `Ambient.resolution_ns`."""
        if clock not in _BEGINNING_NS:
            raise KeyError(clock)
        return _STEP_NS

    def random_bytes(self, size: int) -> bytes:
        """See `Ambient.random_bytes`."""
        made = bytearray()
        while len(made) < size:
            made += hashlib.sha256(_SEED + U64.pack(self._blocks)).digest()
            self._blocks += 1
        return bytes(made[:size])

    def may_sleep(self) -> bool:
        """See `Ambient.may_sleep`."""
        return False
