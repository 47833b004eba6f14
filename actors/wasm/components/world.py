"""What a component sees of the world: clocks, randomness, an environment, and nowhere else to turn.

Source: the interfaces of WASI 0.2 (https://github.com/WebAssembly/WASI/tree/main/wasip2).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from runvisor.actors.wasm.components.imports import U32, U64, Ended, HostFunction
from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.wasi.ambient import HOST, MONOTONIC, REALTIME, Ambient
from runvisor.policies.permissions import KiB

_MAX_RANDOM_BYTES: Final = 64 * KiB
_STDERR: Final = 2


@dataclass(slots=True)
class Surroundings:
    """What one run may use, and what it printed."""

    token: int
    """The run's token in the table of deadlines."""
    deadlines: Deadlines
    output_bytes: int
    """Cap of stdout and of stderr, each."""
    ambient: Ambient = HOST
    """Its clocks and its randomness."""
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    overflowed: bool = False
    on_output: Callable[[], None] | None = None
    """Called after something was printed."""

    def print(self, to: int, text: str) -> None:
        """Keep what is printed, up to the cap.

        Raises:
            Ended: That was more than it may print.
        """
        kept = self.stderr if to == _STDERR else self.stdout
        data = text.encode(errors="replace")
        room = self.output_bytes - len(kept)
        kept += data[:room]
        if self.on_output is not None:
            self.on_output()
        if len(data) > room:
            self.overflowed = True
            raise Ended

    def sleep(self, seconds: float) -> None:
        """Wait, until the deadline at the latest.

        Raises:
            Ended: The deadline came first.
        """
        if not self.ambient.may_sleep():
            return
        left_s = self.deadlines.left_s(self.token)
        time.sleep(max(0.0, min(seconds, left_s)))
        if not seconds < left_s:
            raise Ended


class Worlds:
    """Which run is which: a run is known by the thread it runs in."""

    def __init__(self) -> None:
        self._by_thread: dict[int, Surroundings] = {}

    def enter(self, surroundings: Surroundings) -> None:
        """Let the calling thread's run see these."""
        self._by_thread[threading.get_ident()] = surroundings

    def leave(self) -> None:
        """End what `enter` began."""
        self._by_thread.pop(threading.get_ident(), None)

    def present(self) -> Surroundings:
        """Return those of the calling thread's run."""
        return self._by_thread[threading.get_ident()]

    def host_functions(self) -> Mapping[str, Mapping[str, HostFunction]]:
        """Return all functions that a component may import: ours, under no name, and those of WASI."""
        own: Mapping[str, HostFunction] = {
            "print": lambda to, text: self.present().print(to, text),
            "sleep": lambda seconds: self.present().sleep(seconds),
        }
        return {"": own, **self.functions()}

    def functions(self) -> Mapping[str, Mapping[str, HostFunction]]:
        """Return the functions of WASI that have a meaning here, by interface."""
        return {
            "wasi:clocks/wall-clock": {"now": self._wall_clock},
            "wasi:clocks/monotonic-clock": {"now": self._monotonic_clock, "resolution": lambda: U64(1)},
            "wasi:random/random": {"get-random-bytes": self._random_bytes, "get-random-u64": self._random_number},
            "wasi:cli/environment": {"get-environment": list, "get-arguments": list},
            "wasi:filesystem/preopens": {"get-directories": list},
        }

    def _wall_clock(self) -> Mapping[str, U64 | U32]:
        seconds, nanoseconds = divmod(self.present().ambient.now_ns(REALTIME), 1_000_000_000)
        return {"seconds": U64(seconds), "nanoseconds": U32(nanoseconds)}

    def _monotonic_clock(self) -> U64:
        return U64(self.present().ambient.now_ns(MONOTONIC))

    def _random_bytes(self, size: int) -> bytes:
        if size > _MAX_RANDOM_BYTES:
            raise Ended
        return self.present().ambient.random_bytes(size)

    def _random_number(self) -> U64:
        return U64(int.from_bytes(self.present().ambient.random_bytes(8), "little"))
