"""The channel between nodes: the same frames as a streaming Ray call.

Requests above 100 KB travel as object references: Ray's own step from inline
to object store lies there, and a retry then sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ray
from ray.exceptions import RayActorError, RayError

from runvisor.actors.channel.frames import Message, decode, encode
from runvisor.policies.errors import ProtocolError, WorkerCrashed

REFERENCE_BYTES: Final = 100 * 1024
_HEADER_BYTES: Final = 4


class RayChannel:
    """The client's end of a pool actor on any node.

    Args:
        actor: Handle of a `PoolActor`.
    """

    def __init__(self, actor: Any) -> None:
        self._stream = actor.stream

    def request(self, message: Message, on_started: Callable[[], None] | None = None) -> Message:
        """See `Channel.request`."""
        body = encode(message)[_HEADER_BYTES:]
        argument = ray.put(body) if len(body) > REFERENCE_BYTES else body
        started = False
        try:
            for reference in self._stream.options(num_returns="streaming").remote(argument):
                answer = decode(ray.get(reference))
                if answer.get("op") != "started":
                    return answer
                started = True
                if on_started is not None:
                    on_started()
        except RayActorError:
            raise WorkerCrashed("the pool actor died", "ray", "", {"started": started}) from None
        except RayError as error:
            raise ProtocolError(f"the call to the pool failed: {error}", "ray") from None
        raise ProtocolError("the pool ended its answer without a result", "ray")

    def close(self) -> None:
        """Nothing to give back: Ray owns the connection."""
