"""What a channel is, whichever way its frames travel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from runvisor.actors.channel.frames import Message


class Channel(Protocol):
    """A way to one pool actor."""

    def request(self, message: Message, on_started: Callable[[], None] | None = None) -> Message:
        """Send a request and return its last answer. Safe from many threads.

        Raises:
            WorkerCrashed: The pool died; ``details['started']`` says whether the task had begun.
            ProtocolError: The request is too large, or the answer is none.
        """
        ...

    def close(self) -> None:
        """Give back what the channel holds; closing twice is fine."""
        ...
