"""A child for one task: a warm one, or one of its own when its grant shows it files or hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.instances import InstancePool
from runvisor.actors.jail import staging
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.egress.egress import EgressBroker, OnRecord
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.granted_files import MAX_FILES, GrantedFiles
from runvisor.actors.jail.mounts import View
from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.errors import PolicyError, WorkerCrashed
from runvisor.policies.permissions import Filesystem, Permissions
from runvisor.policies.task import MAX_FILES as MAX_RESULT_FILES
from runvisor.policies.task import MAX_FILES_BYTES

_OWN_PARTS: Final = 2  # /in and /out come before the staged places
_NO_FILES: Final = Filesystem()
_REMEDY: Final = "run as root, or allow user namespaces (sysctl user.max_user_namespaces)"


@dataclass(frozen=True, slots=True)
class Leavings:
    """What a task left behind for others."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


@dataclass(slots=True)
class Custody:
    """A child that waits for one task, with the files and the network that the task is to find."""

    child: Child
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its programs need to find the network."""
    _granted: GrantedFiles | None = None
    _disk_bytes: int = 0

    @property
    def networked(self) -> bool:
        """It has a way out."""
        return bool(self.environment)

    def collect(self, *, ended_well: bool) -> Leavings:
        """End the child and take what it left: /out always, granted places after a good end only."""
        if not self.child.folders:
            return Leavings()
        out = self.child.folders[1]
        if self._granted is None and staging.is_empty(out):
            return Leavings()
        self.child.kill()
        if self.child.exit() is None:
            raise WorkerCrashed("a child cannot be ended", "jail")
        room = staging.Room(MAX_RESULT_FILES, MAX_FILES_BYTES)
        found = staging.harvest(out, lambda _: True, room)
        refused = list(found.refused)
        if self._granted is not None and ended_well:
            folders = self.child.folders[_OWN_PARTS:]
            refused += self._granted.publish(folders, staging.Room(MAX_FILES, self._disk_bytes))
        return Leavings(found.files, tuple(refused))


class Warden:
    """Finds a child for each task of one runtime.

    Args:
        pool: Warm children, whose jail depends on no grant.
        zygote: Makes one when a warm one does not fit.
        hosts: The operator's table of hosts whose places are pinned (see `EgressBroker`).
    """

    def __init__(self, pool: InstancePool[Child], zygote: Zygote, hosts: Mapping[str, str]) -> None:
        self._pool = pool
        self._zygote = zygote
        self._broker = EgressBroker(hosts)

    @contextmanager
    def take(
        self,
        permissions: Permissions,
        on_record: OnRecord,
        *,
        files: Mapping[str, bytes] = {},
        folder: str = "",
        cancellation: Cancellation | None = None,
    ) -> Iterator[Custody]:
        """Lend a child that fits a grant; it is destroyed after the block.

        Args:
            permissions: What was granted.
            on_record: Called for each decision about a connection, from another thread.
            files: What the task finds under /in.
            folder: Where it starts, if its grant shows that place.
            cancellation: Ends the waiting for a child at once.

        Raises:
            Cancelled: It was called off; no child was taken.
            PolicyError: What is granted cannot be given here.
            InvalidPermissions: A granted path does not exist, or leads through a link.
            DiskLimitExceeded: The granted files do not fit into ``disk_bytes``.
        """
        with ExitStack() as stack:
            if self._fits_warm_children(permissions):
                custody = Custody(stack.enter_context(self._pool.lend(cancellation=cancellation)))
            else:
                custody = self._make_own(stack, permissions, on_record, folder, cancellation)
            child = custody.child
            if files:
                if not child.folders:
                    raise PolicyError("no file can be given here", "files", _REMEDY)
                staging.write_files(child.folders[0], files)
            yield custody

    def close(self) -> None:
        """End the broker, and with it every connection; closing twice is fine."""
        self._broker.close()

    def _fits_warm_children(self, permissions: Permissions) -> bool:
        nothing = permissions.filesystem == _NO_FILES and not permissions.network.allowed_hosts
        return nothing and permissions.disk_bytes == self._zygote.spec.scratch_bytes

    def _make_own(
        self,
        stack: ExitStack,
        permissions: Permissions,
        on_record: OnRecord,
        folder: str,
        cancellation: Cancellation | None,
    ) -> Custody:
        granted: GrantedFiles | None = None
        plan: NetworkPlan | None = None
        hosts = permissions.network.allowed_hosts
        standing = find_standing()
        if standing is Standing.PLAIN and (hosts or permissions.filesystem != _NO_FILES):
            raise PolicyError("neither files nor hosts can be granted without namespaces", "permissions", _REMEDY)
        if permissions.filesystem != _NO_FILES:
            granted = GrantedFiles(permissions.filesystem, may_bind=standing is Standing.ROOT)
            stack.callback(granted.close)
        if hosts:
            plan = NetworkPlan.of(hosts)
        view = granted.view if granted is not None else View() if plan is not None else None

        def make() -> Child:
            return self._zygote.spawn(
                memory_bytes=permissions.memory_bytes,
                disk_bytes=permissions.disk_bytes,
                view=view,
                bound=granted.bound if granted is not None else (),
                network=plan,
                folder=folder,
            )

        child = stack.enter_context(self._pool.lend(make=make, cancellation=cancellation))
        if plan is not None:
            listeners, child.listeners = child.listeners, []
            stack.callback(self._broker.open(plan, listeners, on_record=on_record).close)
        if granted is not None:
            granted.stage(child.folders[_OWN_PARTS:], permissions.disk_bytes)
        return Custody(child, plan.environment if plan is not None else {}, granted, permissions.disk_bytes)
