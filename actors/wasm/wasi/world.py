"""All that one run sees through WASI, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.wasi.abi import Ended
from runvisor.actors.wasm.wasi.ambient import HOST, Ambient
from runvisor.actors.wasm.wasi.descriptors import Directory, Table
from runvisor.actors.wasm.wasi.guard import MAX_DENIALS, NOTHING, Denial, PathGuard

if TYPE_CHECKING:
    from runvisor.actors.wasm.wasi.network import Web

_MAX_DENIED: Final = 1000
_NO_DEADLINES: Final = Deadlines(lambda: None)


@dataclass(slots=True)
class World:
    """One run's world; nothing is granted in it but what is put here. Close it when the run has ended."""

    token: int
    """The run's token in the table of deadlines."""
    output_bytes: int
    """Cap of stdout and of stderr, each."""
    stdin: bytes = b""
    arguments: tuple[bytes, ...] = (b"main",)
    environment: tuple[bytes, ...] = ()
    """``NAME=value`` each."""
    ambient: Ambient = HOST
    """Clocks and randomness."""
    guard: PathGuard = NOTHING
    """What may be done with which path; nothing may, unless it is set."""
    on_denial: Callable[[Denial], None] | None = None
    """Told of each refusal, `MAX_DENIALS` at most."""
    denials: int = 0
    deadlines: Deadlines = _NO_DEADLINES
    """The process's."""
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    exit_code: int | None = None
    """Set by ``proc_exit``."""
    overflowed: str = ""
    """``stdout`` or ``stderr``, if it went over the cap."""
    on_output: Callable[[], None] | None = None
    """Called after something was written to stdout or stderr, in the run's thread."""
    web: Web | None = None
    """The way to granted hosts."""
    web_error: str = ""
    """Why its last use failed."""
    stdin_at: int = 0
    table: Table = field(default_factory=Table)

    def preopen(self, directory: Directory) -> None:
        """Let the guest find an open folder from its start; owned from now on."""
        self.table.add(directory)

    def deny(self, operation: str, what: str, reason: str) -> None:
        """Tell of a refusal."""
        self.denials += 1
        if self.on_denial is not None and self.denials <= MAX_DENIALS:
            self.on_denial(Denial(operation, what[:_MAX_DENIED], reason))

    def check_time(self) -> None:
        """Go on only while the run may.

        Raises:
            Ended: Its deadline has passed, or it was called off.
        """
        if not self.deadlines.may_go_on(self.token):
            raise Ended

    def sleep(self, seconds: float) -> None:
        """Wait, until it is called off at the latest."""
        self.deadlines.sleep(self.token, seconds)

    def close(self) -> None:
        """Close all that it has open; closing twice is fine."""
        self.table.close_all()
