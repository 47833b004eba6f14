"""One engine process per principal: made ahead, kept while it is used, never shared by two.

An engine that has compiled or run anything of one principal is never given to
another; when room is needed the one that was idle longest ends.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from threading import Condition, Lock
from types import TracebackType
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.custody import Custody, Warden
from runvisor.actors.jail.egress.egress import OnRecord
from runvisor.actors.jail.egress.records import EgressRecord
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import PoolSize
from runvisor.actors.wasm.fetchers import Fetchers
from runvisor.actors.wasm.library import Api, chosen_api
from runvisor.actors.wasm.links import EngineLink
from runvisor.actors.wasm.native_code import Artifacts, NativeCode
from runvisor.policies.errors import PoolExhausted
from runvisor.policies.permissions import MiB, Network, Permissions

_GUEST: Final = "runvisor.actors.wasm.engine"
_FIRST_BYTES: Final = 512 * MiB
_ALONE: Final = 2
"""Engines that executions may have to themselves at once, beyond those of the principals."""
_COMPILERS: Final = 2
"""Modules that may be compiled at once in processes of their own, beyond these."""


def _no_connection(record: EgressRecord) -> None:
    """An engine has no network: nothing can be recorded of it."""
    raise AssertionError(record)


@dataclass(frozen=True, slots=True)
class Errand:
    """What an engine of its own is made for."""

    permissions: Permissions
    cancellation: Cancellation
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What is found under /in."""
    folder: str = ""
    """Where the engine process stands, if the grant shows that place."""
    on_connection: OnRecord = _no_connection
    """Called for each decision about a connection, from another thread."""


class Principals:
    """The engines of a runtime, by principal.

    Args:
        size: ``maximum`` bounds the executions in one engine, and the engines.
        artifacts: Where native code is kept for other processes; None keeps it in this one only.
        api: How wasmtime is used; None is by its version.
        hosts: The operator's table of hosts whose places are pinned (see `EgressBroker`).
    """

    def __init__(
        self,
        size: PoolSize,
        artifacts: Artifacts | None = None,
        api: Api | None = None,
        hosts: Mapping[str, str] | None = None,
    ) -> None:
        api = api or chosen_api()
        self._size = size
        options = {"lanes": size.maximum, "api": api}
        self._zygote = Zygote(JailSpec("wasm", _GUEST, options=options, syscalls="engine", cores=None))
        self._spares: InstancePool[Child] = InstancePool(
            lambda: self._zygote.spawn(memory_bytes=_FIRST_BYTES),
            Child.close,
            PoolSize(minimum=1, maximum=size.maximum + _ALONE + _COMPILERS, wait_s=size.wait_s),
        )
        self._warden = Warden(self._spares, self._zygote, {})
        self._fetchers = Fetchers(size, hosts or {})
        self._natives = NativeCode(self._spares.lend, artifacts, api)
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._engines: OrderedDict[str, _Kept] = OrderedDict()
        self._making: set[str] = set()

    def start(self) -> None:
        """Start the zygote and a first spare engine.

        Raises:
            SpawnFailed: It cannot run here.
        """
        self._zygote.start()
        self._spares.start()

    def engine(self, principal: str) -> AbstractContextManager[EngineLink]:
        """Lend the principal's engine, as others of the same principal are lent it too.

        Raises:
            PoolExhausted: Too many principals run something just now.
            SpawnFailed: No engine can be made.
        """
        return self._take(principal)

    @contextmanager
    def engine_alone(self) -> Iterator[EngineLink]:
        """Lend a new engine to one execution alone; it ends with it."""
        with self._spares.lend() as child:
            link = EngineLink(child, self._natives)
            try:
                yield link
            finally:
                link.close()

    @contextmanager
    def own_engine(self, errand: Errand) -> Iterator[tuple[EngineLink, Custody]]:
        """Lend an engine that sees just what a grant shows it, for one execution; it ends with it.

        Its jail never has a network: granted hosts are reached by a process beside it.

        Raises:
            PolicyError: What is granted cannot be given here.
            InvalidPermissions: A granted path does not exist, or leads through a link.
            DiskLimitExceeded: The granted files do not fit into ``disk_bytes``.
            PoolExhausted: No engine came free in time.
            SpawnFailed: No engine can be made.
        """
        network = errand.permissions.network
        shown = replace(errand.permissions, network=Network(), memory_bytes=_FIRST_BYTES)
        with ExitStack() as stack:
            web = (
                stack.enter_context(self._fetchers.take(network, errand.on_connection))
                if network != Network()
                else None
            )
            custody = stack.enter_context(
                self._warden.take(shown, _no_connection, files=errand.files, folder=errand.folder)
            )
            link = EngineLink(custody.child, self._natives)
            stack.callback(link.close)
            if web is not None:
                link.connect(web.fileno())
                web.close()
            yield link, custody

    def close(self) -> None:
        """End every engine and the zygote; closing twice is fine."""
        with self._lock:
            engines, self._engines = list(self._engines.values()), OrderedDict()
            for kept in engines:
                kept.link.condemn()
        for kept in engines:
            if kept.users == 0:
                kept.stack.close()
        self._spares.close()
        self._warden.close()
        self._fetchers.close()
        self._zygote.close()
        self._natives.close()

    def take_back(self, kept: _Kept) -> None:
        """End what `engine` began; called by what it returned."""
        with self._lock:
            kept.users -= 1
            if kept.link.dead and self._engines.get(kept.principal) is kept:
                del self._engines[kept.principal]
            is_over = kept.users == 0 and self._engines.get(kept.principal) is not kept
            if kept.users == 0:
                self._changed.notify_all()
        if is_over:
            kept.stack.close()

    def _take(self, principal: str) -> _Kept:
        evicted: _Kept | None = None
        deadline: float | None = None
        with self._lock:
            while True:
                kept = self._engines.get(principal)
                if kept is not None and not kept.link.dead:
                    self._engines.move_to_end(principal)
                    kept.users += 1
                    return kept
                is_making = principal in self._making
                if not is_making:
                    self._engines.pop(principal, None)  # dead; its last user closes it
                    evicted = self._evict()
                    if len(self._engines) + len(self._making) < self._size.maximum:
                        break
                now = time.monotonic()
                deadline = now + self._size.wait_s if deadline is None else deadline
                left_s = deadline - now
                if left_s <= 0 or not self._changed.wait(left_s):
                    raise PoolExhausted(
                        f"{len(self._engines)} principals run something just now",
                        "",
                        "retry later, or raise the pool's maximum",
                        {"retry_after_s": 1.0},
                    )
            self._making.add(principal)
        if evicted is not None:
            evicted.stack.close()
        made: _Kept | None = None
        try:
            stack = ExitStack()
            link = EngineLink(stack.enter_context(self._spares.lend()), self._natives)
            stack.callback(link.close)
            made = _Kept(self, principal, link, stack)
            return made
        finally:
            with self._lock:
                self._making.discard(principal)
                if made is not None:
                    self._engines[principal] = made
                self._changed.notify_all()

    def _evict(self) -> _Kept | None:
        """When there is no room left, take away the engine that was idle longest, if one is idle."""
        if len(self._engines) + len(self._making) < self._size.maximum:
            return None
        for principal, kept in self._engines.items():
            if kept.users == 0:
                return self._engines.pop(principal)
        return None


@dataclass(slots=True, eq=False)
class _Kept:
    """An engine and what ends it; as a context manager, one use of it."""

    owner: Principals
    principal: str
    link: EngineLink
    stack: ExitStack
    users: int = 1

    def __enter__(self) -> EngineLink:
        return self.link

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.owner.take_back(self)
