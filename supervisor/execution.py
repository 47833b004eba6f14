"""One execution as its caller follows it: its output while it runs, its result, and a way to call it off."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Final, Literal

from runvisor.actors.channel.base import OnEvent
from runvisor.actors.channel.frames import Message
from runvisor.policies.errors import Cancelled, RunvisorError
from runvisor.policies.result import Result

StreamName = Literal["stdout", "stderr"]
OnOutput = Callable[["Output"], object]
_STREAMS: Final[dict[object, StreamName]] = {1: "stdout", 2: "stderr"}


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of what a guest printed, as it came.

    Example:
        >>> Output("stdout", "hello").text
        'hello'
    """

    stream: StreamName
    text: str


class Call:
    """An execution's name, and the way to call it off wherever it is just now."""

    def __init__(self) -> None:
        self.id: Final = secrets.token_hex(16)
        self._lock = threading.Lock()
        self._cancelled = False
        self._word: Callable[[], object] | None = None

    def sending(self, word: Callable[[], object]) -> None:
        """Note how it is called off from now on; called before it is sent to a pool.

        Args:
            word: Tells that pool.

        Raises:
            Cancelled: It was called off before; it must not be sent.
        """
        with self._lock:
            if self._cancelled:
                raise Cancelled("the task was called off before it began")
            self._word = word

    def cancel(self) -> None:
        """Call it off; harmless when it has been, or is over."""
        with self._lock:
            was_cancelled, self._cancelled = self._cancelled, True
            word = self._word
        if word is not None and not was_cancelled:
            with contextlib.suppress(RunvisorError):  # a pool that is gone runs nothing
                word()


class Execution:
    """A task on its way; made by `Supervisor.submit`. Safe to use from many threads.

    Dropping it does not end the task; `cancel` does.
    """

    def __init__(self, call: Call, future: Future[Result]) -> None:
        self._call = call
        self.future: Final = future
        """The same as an object of the standard library, to be awaited or waited for with others."""

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the result.

        Args:
            timeout_s: How long to wait; the task goes on after that. None waits until it ends.

        Raises:
            TimeoutError: It is not there yet.
            Cancelled: It was called off before it began. One that had begun gives a
                result whose ``error`` is `Cancelled`, with its output until then.
            RunvisorError: What `Supervisor.run` would have raised.
        """
        try:
            return self.future.result(timeout_s)
        except FutureTimeout:
            if self.future.done():
                raise
            raise TimeoutError(f"the execution has not ended within {timeout_s} s") from None

    def cancel(self) -> None:
        """Call the task off: its sandbox is killed at once. Harmless when it has ended."""
        if not self.future.done():
            self._call.cancel()

    def done(self) -> bool:
        """Say whether `result` would return, or raise, at once."""
        return self.future.done()

    def on_done(self, call: Callable[[], object]) -> None:
        """Have a function called, in a thread of ours, when it has ended; at once if it has."""
        self.future.add_done_callback(lambda _: call())


def output_events(on_output: OnOutput | None) -> OnEvent | None:
    """Return what passes a pool's ``output`` events on, or None if nobody listens."""
    if on_output is None:
        return None

    def on_event(event: Message) -> None:
        stream = _STREAMS.get(event.get("stream"))
        text = event.get("data")
        if stream is not None and isinstance(text, str):
            on_output(Output(stream, text))

    return on_event
