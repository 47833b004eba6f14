"""The processes that make HTTP requests for wasm runs: one for each run that is granted hosts, beside its engine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.custody import Warden
from runvisor.actors.jail.egress.egress import OnRecord
from runvisor.actors.jail.egress.plan import PROXY_ADDRESS, NetworkPlan
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import PoolSize
from runvisor.policies.errors import WorkerCrashed
from runvisor.policies.permissions import MiB, Network, Permissions

_GUEST: Final = "runvisor.actors.wasm.http_guest"
_MEMORY_BYTES: Final = 128 * MiB


class Fetchers:
    """Makes them when they are first needed.

    Args:
        size: ``maximum`` at once, and how long one may be waited for.
        hosts: The operator's table of hosts whose places are pinned (see `EgressBroker`).
    """

    def __init__(self, size: PoolSize, hosts: Mapping[str, str]) -> None:
        self._zygote = Zygote(JailSpec("wasm-http", _GUEST))
        self._pool: InstancePool[Child] = InstancePool(
            lambda: self._zygote.spawn(memory_bytes=_MEMORY_BYTES),
            Child.close,
            PoolSize(minimum=1, maximum=size.maximum + 1, wait_s=size.wait_s),
        )
        self._warden = Warden(self._pool, self._zygote, hosts)
        self._lock = threading.Lock()
        self._has_started = False

    @contextmanager
    def take(self, network: Network, on_record: OnRecord) -> Iterator[socket.socket]:
        """Give the stream to a process that reaches the granted hosts; it ends with the block.

        Args:
            network: What was granted.
            on_record: Called for each decision about a connection, from another thread.

        Raises:
            PolicyError: No host can be granted here.
            PoolExhausted: None came free in time.
            SpawnFailed: None can be made.
        """
        with self._lock:
            if not self._has_started:
                self._zygote.start()
                self._pool.start()
                self._has_started = True
        permissions = Permissions(network=network, memory_bytes=_MEMORY_BYTES)
        plan = NetworkPlan.of(network.allowed_hosts)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs, self._warden.take(permissions, on_record) as custody:
            custody.child.limit_memory(_MEMORY_BYTES)
            message = {"allowed_hosts": list(network.allowed_hosts), "proxy": [PROXY_ADDRESS, plan.proxy_port]}
            try:
                custody.child.channel.send(message, [theirs.fileno()])
            except OSError:
                raise WorkerCrashed("the process for its requests died", "network", "", {"started": False}) from None
            theirs.close()
            yield ours

    def close(self) -> None:
        """End every one of them; closing twice is fine."""
        if self._has_started:
            self._pool.close()
        self._warden.close()
        self._zygote.close()
