"""What a channel is, whichever way its frames travel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import Message

EVENTS: Final = frozenset({"started", "output"})
"""What a pool may say of a request before its last answer."""

OnEvent = Callable[[Message], None]


class Channel(Protocol):
    """A way to one pool actor: the client's end."""

    def request(self, message: Message, on_event: OnEvent | None = None, shared: Sequence[int] = ()) -> Message:
        """Send a request and return its last answer. Safe from many threads.

        A caller that is interrupted here, or whose ``on_event`` raises, has gone
        away for the pool, which calls the request off.

        Args:
            message: The request.
            on_event: Called with each answer before the last: see `EVENTS`.
            shared: Sealed memory that belongs to the request; the descriptors stay the caller's.

        Raises:
            WorkerCrashed: The pool died; ``details['started']`` says whether the task had begun.
            ProtocolError: The request is too large, or the answer is none.
        """
        ...

    def close(self) -> None:
        """Give back what the channel holds; closing twice is fine."""
        ...


class Answers(Protocol):
    """The pool's end of one request. For use by the thread that handles it."""

    def send(self, message: Message) -> None:
        """Send an answer.

        Raises:
            OSError: The client is gone, or takes nothing.
        """
        ...

    def offer(self, make: Callable[[], Message]) -> bool:
        """Make and send an answer if that needs no waiting, and say whether it did.

        Raises:
            OSError: The client is gone.
        """
        ...

    def cancel_when_gone(self, cancellation: Cancellation) -> AbstractContextManager[None]:
        """While the block runs, a client that goes away calls the execution off, where that can be seen."""
        ...
