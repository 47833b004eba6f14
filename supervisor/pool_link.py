"""A handle's way to one pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runvisor.actors.channel.base import Channel
from runvisor.actors.channel.ray_call import RayChannel
from runvisor.actors.channel.unix import UnixChannel
from runvisor.actors.runtime import Load


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
