"""A handle's ways to pools: found through the supervisor, then direct."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from runvisor.actors.channel.base import Channel
from runvisor.actors.channel.ray_call import RayChannel
from runvisor.actors.channel.unix import UnixChannel
from runvisor.actors.runtime import Load
from runvisor.policies.errors import RunvisorError, WorkerCrashed


def ask(reference: Any) -> Mapping[str, Any]:
    """Wait for the supervisor's answer; its own errors come out as they are.

    Raises:
        WorkerCrashed: It does not answer.
    """
    try:
        answer: Mapping[str, Any] = ray.get(reference)
    except RunvisorError as error:
        raise RunvisorError.from_wire(error.to_wire()) from None  # without Ray's wrapping
    except RayError as error:
        raise WorkerCrashed(f"the supervisor does not answer: {error}", "supervisor") from None
    return answer


@dataclass(slots=True)
class PoolLink:
    """A pool as a handle knows it."""

    endpoint: Mapping[str, Any]
    """What the supervisor said of it: socket, nonce, actor, load."""
    channel: Channel
    load: Load
    """How busy it was when it last answered."""

    @classmethod
    def to(cls, endpoint: Mapping[str, Any]) -> PoolLink:
        """Link to a pool by the fastest channel that reaches it: its socket on this node, else Ray."""
        channel: Channel
        try:
            channel = UnixChannel(endpoint["socket"], endpoint["nonce"])
        except OSError:
            channel = RayChannel(endpoint["actor"])
        return cls(endpoint, channel, Load(**endpoint["load"]))


class PoolLinks:
    """The pools that a handle has met, one for each runtime. Safe to use from many threads.

    Args:
        supervisor: The supervisor actor.
    """

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor
        self._links: dict[str, PoolLink] = {}
        self._lock = threading.Lock()

    def to(self, runtime: str) -> PoolLink:
        """Return the link to a runtime's pool, asking the supervisor for it the first time.

        Raises:
            SpawnFailed: The runtime cannot run here.
        """
        link = self._links.get(runtime)
        if link is not None:
            return link
        return self._keep(runtime, ask(self._supervisor.pool.remote(runtime)))

    def successor(self, runtime: str, dead: PoolLink) -> PoolLink:
        """Return the link to the pool that took over from one that died."""
        return self._keep(runtime, ask(self._supervisor.replace.remote(runtime, dead.endpoint["nonce"])))

    def runtimes(self) -> set[str]:
        """Return the runtimes whose pools it has met."""
        return set(self._links)

    def loads(self) -> dict[str, Load]:
        """Return how busy each pool last said that it was."""
        return {runtime: link.load for runtime, link in list(self._links.items())}

    def note_load(self, runtime: str, load: object) -> None:
        """Note what a pool's answer says of its load, if it says something."""
        link = self._links.get(runtime)
        if link is not None and isinstance(load, dict):
            link.load = Load(**load)

    def close(self) -> None:
        """Close the channels; closing twice is fine."""
        with self._lock:
            links = list(self._links.values())
            self._links.clear()
        for link in links:
            link.channel.close()

    def _keep(self, runtime: str, endpoint: Mapping[str, Any]) -> PoolLink:
        with self._lock:
            known = self._links.get(runtime)
            if known is not None and known.endpoint["nonce"] == endpoint["nonce"]:
                return known
            if known is not None:
                known.channel.close()
            link = PoolLink.to(endpoint)
            self._links[runtime] = link
            return link
