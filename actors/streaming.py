"""What a guest prints, on its way to the client while the guest still runs."""

from __future__ import annotations

import codecs
from contextlib import suppress
from functools import partial
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.base import Answers
from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Watch

MAX_EVENTS: Final = 10_000
"""Events of one execution; what comes after them comes with the result."""


class OutputStream:
    """Turns what is printed into ``output`` events; never waits for the client.

    A client that reads too slowly gets larger events, fewer of them, and late,
    but every byte in order: what could not be sent is kept, bounded by the
    guest's own ``output_bytes``, and goes with the next event or at the end.
    Text that is not UTF-8 arrives with replacement characters, as in the result.

    Args:
        answers: Where the events go.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._kept: dict[int, list[str]] = {1: [], 2: []}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {1: decoder("replace"), 2: decoder("replace")}
        self._left = MAX_EVENTS

    def add(self, stream: int, data: bytes) -> None:
        """Send what was printed on stdout (1) or stderr (2), if the client takes it now.

        Raises:
            OSError: The client is gone.
        """
        text = self._decoders[stream].decode(data)
        if text:
            self._kept[stream].append(text)
        kept = self._kept[stream]
        if kept and self._left > 0 and self._answers.offer(partial(_event, stream, kept)):
            self._left -= 1
            kept.clear()

    def finish(self) -> None:
        """Send what is left; this may wait for the client.

        Raises:
            OSError: The client is gone.
        """
        for stream, kept in self._kept.items():
            if rest := self._decoders[stream].decode(b"", final=True):
                kept.append(rest)
            if kept:
                self._answers.send(_event(stream, kept))
                kept.clear()


class Progress:
    """What one request has said of itself so far.

    A client that has gone is no reason to break off here: its execution is
    called off, and ends in order.

    Args:
        answers: Where it says it.
        streams: Whether the client wants output as it is printed.
    """

    def __init__(self, answers: Answers, *, streams: bool) -> None:
        self.answers = answers
        self.has_started = False
        self._output = OutputStream(answers) if streams else None
        self._cancellation: Cancellation | None = None

    def watch(self, cancellation: Cancellation) -> Watch:
        """Return what the runtime tells of the execution."""
        self._cancellation = cancellation
        if self._output is None:  # nobody listens: no runtime need send anything early
            return Watch(self._started, cancellation=cancellation)
        return Watch(self._started, self._printed, cancellation)

    def finish(self) -> None:
        """Send the output that has not been sent.

        Raises:
            OSError: The client is gone.
        """
        if self._output is not None:
            self._output.finish()

    def _started(self) -> None:
        if self.has_started:  # a batch starts once
            return
        self.has_started = True
        with suppress(OSError):
            self.answers.send({"op": "started"})

    def _printed(self, stream: int, data: bytes) -> None:
        if self._output is not None:
            try:
                self._output.add(stream, data)
            except OSError:
                if self._cancellation is not None:
                    self._cancellation.cancel()


def _event(stream: int, texts: list[str]) -> Message:
    return {"op": "output", "stream": stream, "data": "".join(texts)}
