"""The channel between nodes: the same frames as a streaming Ray call.

Requests above 100 KB travel as object references: Ray's own step from inline
to object store lies there, and a retry then sends nothing twice. Shared memory
travels by reference as well, and the pool lays it out in memory of its node.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import ray
from ray.exceptions import RayActorError, RayError

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.base import EVENTS, OnEvent
from runvisor.actors.channel.frames import Message, decode, encode
from runvisor.policies.errors import ProtocolError, WorkerCrashed

REFERENCE_BYTES: Final = 100 * 1024
_HEADER_BYTES: Final = 4
_MAX_QUEUED: Final = 64


class RayChannel:
    """The client's end of a pool actor on any node.

    Args:
        actor: Handle of a `PoolActor`.
    """

    def __init__(self, actor: Any) -> None:
        self._stream = actor.stream

    def request(self, message: Message, on_event: OnEvent | None = None, shared: Sequence[int] = ()) -> Message:
        """See `Channel.request`. A caller that is interrupted sends the pool a word; one that dies cannot."""
        body = encode(message)[_HEADER_BYTES:]
        argument = ray.put(body) if len(body) > REFERENCE_BYTES else body
        started = False
        answer: Message = {}
        try:
            for reference in self._stream.options(num_returns="streaming").remote(argument, *_references(shared)):
                answer = decode(ray.get(reference))
                if answer.get("op") not in EVENTS:
                    return answer
                started = True
                if on_event is not None:
                    on_event(answer)
        except RayActorError:
            raise WorkerCrashed("the pool actor died", "ray", "", {"started": started}) from None
        except RayError as error:
            raise ProtocolError(f"the call to the pool failed: {error}", "ray") from None
        except BaseException:
            self._call_off(message)
            raise
        raise ProtocolError("the pool ended its answer without a result", "ray")

    def close(self) -> None:
        """Nothing to give back: Ray owns the connection."""

    def _call_off(self, message: Message) -> None:
        """Say that nobody waits for a request any more."""
        if message.get("execution"):
            word = {"op": "cancel", "execution": message["execution"], "authority": message.get("authority")}
            with contextlib.suppress(RayError):
                self._stream.options(num_returns="streaming").remote(encode(word)[_HEADER_BYTES:])


def _references(shared: Sequence[int]) -> list[Any]:
    """Put sealed memory into the object store, without a copy on the way."""
    references: list[Any] = []
    for fd in shared:
        memory = mmap.mmap(fd, os.fstat(fd).st_size, mmap.MAP_PRIVATE, mmap.PROT_READ)
        references.append(ray.put(np.frombuffer(memory, "u1")))
    return references


class RayAnswers:
    """The pool's end of one streaming call. See `Answers`.

    Whether the client still lives cannot be seen from here: a task whose client
    was killed on another node runs until its own deadline.

    Example:
        >>> answers = RayAnswers()
        >>> answers.send({"op": "pong"})
        >>> answers.close()
        >>> [decode(body) for body in answers]
        [{'op': 'pong'}]
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Message | None] = SimpleQueue()

    def send(self, message: Message) -> None:
        """See `Answers.send`."""
        self._queue.put(message)

    def offer(self, make: Callable[[], Message]) -> bool:
        """See `Answers.offer`; a client far behind gets fewer and larger events."""
        if self._queue.qsize() >= _MAX_QUEUED:
            return False
        self._queue.put(make())
        return True

    def cancel_when_gone(self, cancellation: Cancellation) -> AbstractContextManager[None]:
        """See `Answers.cancel_when_gone`; this channel cannot tell."""
        del cancellation
        return nullcontext()

    def close(self) -> None:
        """End the iteration after what has been sent."""
        self._queue.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (answer := self._queue.get()) is not None:
            yield encode(answer)[_HEADER_BYTES:]
