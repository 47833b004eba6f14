"""What an engine says of a run while it runs: every byte of it from a process that hostile code runs in."""

from __future__ import annotations

from collections.abc import Callable

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.wasi.guard import MAX_DENIALS, Denial
from runvisor.policies.errors import ProtocolError

OnDenial = Callable[[Denial], None]
"""Called for each path operation that was refused. If it raises, the run is not waited for any longer."""
_MAX_TEXT = 1000


def ignore_denial(denial: Denial) -> None:
    """Record nothing."""
    del denial


class Heard:
    """The events of one run.

    Args:
        output_bytes: Cap of stdout and of stderr, each.
        output: Takes output as it comes.
        on_denial: Takes denials.
        told: How many bytes of each stream ``output`` has had already, from an engine that was
            lost to another run; counted on here.

    Example:
        >>> heard = Heard(10, lambda stream, data: print(stream, data), ignore_denial, [0, 0])
        >>> heard.hear({"event": "output", "stream": 1, "data": b"abc"})
        1 b'abc'
        >>> heard.all_of(1, b"def")
        b'abcdef'
    """

    def __init__(
        self, output_bytes: int, output: Callable[[int, bytes], None], on_denial: OnDenial, told: list[int]
    ) -> None:
        self._cap = output_bytes
        self._output = output
        self._on_denial = on_denial
        self._told = told
        self._kept = (bytearray(), bytearray())
        self._denials = 0

    @property
    def told(self) -> tuple[int, int]:
        """How many bytes of stdout and of stderr have been passed on."""
        return self._told[0], self._told[1]

    def hear(self, message: Message) -> None:
        """Take one event.

        Raises:
            ProtocolError: It is none, or more than there may be.
        """
        match message:
            case {"event": "output", "stream": 1 | 2 as stream, "data": bytes(data)}:
                self._hear_output(stream, data)
            case {"event": "denied", "operation": str(operation), "path": str(path), "reason": str(reason)}:
                self._denials += 1
                if self._denials > MAX_DENIALS or max(map(len, (operation, path, reason))) > _MAX_TEXT:
                    raise ProtocolError("the engine tells of more denials than it may")
                self._on_denial(Denial(operation, path, reason))
            case _:
                raise ProtocolError("the engine told what is no event")

    def all_of(self, stream: int, rest: bytes) -> bytes:
        """Return a stream with what came at the end.

        Raises:
            ProtocolError: It is more than the cap.
        """
        kept = self._kept[stream - 1]
        if len(kept) + len(rest) > self._cap:
            raise ProtocolError("the engine passed on more output than it may")
        return bytes(kept) + rest if kept else rest

    def _hear_output(self, stream: int, data: bytes) -> None:
        kept = self._kept[stream - 1]
        kept += data
        if len(kept) > self._cap:
            raise ProtocolError("the engine passed on more output than it may")
        if fresh := bytes(kept[self._told[stream - 1] :]):
            self._told[stream - 1] = len(kept)
            self._output(stream, fresh)
