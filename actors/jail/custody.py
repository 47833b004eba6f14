"""A child for one task: a warm one, or one of its own when its grant shows it files or hosts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from runvisor.actors.instances import InstancePool
from runvisor.actors.jail import staging
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.granted_files import MAX_FILES, GrantedFiles
from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.errors import PolicyError, WorkerCrashed
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import MAX_FILES as MAX_RESULT_FILES
from runvisor.policies.task import MAX_FILES_BYTES, Task

_OWN_PARTS: Final = 2  # /in and /out come before the staged places


@dataclass(frozen=True, slots=True)
class Leavings:
    """What a task left behind for others."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


@dataclass(slots=True)
class Custody:
    """A child that waits for one task, with the files that the task is to find."""

    child: Child
    _granted: GrantedFiles | None = None
    _disk_bytes: int = 0

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
            refused += self._granted.publish(self.child.folders[_OWN_PARTS:], staging.Room(MAX_FILES, self._disk_bytes))
        return Leavings(found.files, tuple(refused))


@contextmanager
def take_custody(pool: InstancePool[Child], zygote: Zygote, task: Task, permissions: Permissions) -> Iterator[Custody]:
    """Lend a child that fits a grant; it is destroyed after the block.

    Args:
        pool: Warm children, whose jail depends on no grant.
        zygote: Makes one when a warm one does not fit.
        task: Whose files go to /in.
        permissions: What it was granted.

    Raises:
        PolicyError: What is granted cannot be given here.
        InvalidPermissions: A granted path does not exist, or leads through a link.
    """
    with ExitStack() as stack:
        granted: GrantedFiles | None = None
        if _fits_warm_children(zygote, permissions):
            child = stack.enter_context(pool.lend())
        else:
            has_folders = find_standing() is not Standing.PLAIN
            if permissions.filesystem != type(permissions.filesystem)():
                if not has_folders:
                    raise PolicyError("no file can be granted here", "filesystem", "run as root, or allow namespaces")
                granted = GrantedFiles(permissions.filesystem, may_bind=find_standing() is Standing.ROOT)
                stack.callback(granted.close)

            def make() -> Child:
                return zygote.spawn(
                    memory_bytes=permissions.memory_bytes,
                    disk_bytes=permissions.disk_bytes,
                    view=granted.view if granted else None,
                    bound=granted.bound if granted else (),
                )

            child = stack.enter_context(pool.lend(make=make))
        if task.files:
            if not child.folders:
                raise PolicyError("no file can be given here", "files", "run as root, or allow user namespaces")
            staging.write_files(child.folders[0], task.files)
        if granted is not None:
            granted.stage(child.folders[_OWN_PARTS:], permissions.disk_bytes)
        yield Custody(child, granted, permissions.disk_bytes)


def _fits_warm_children(zygote: Zygote, permissions: Permissions) -> bool:
    files, hosts = permissions.filesystem, permissions.network.allowed_hosts
    return not (files.read or files.write or hosts) and permissions.disk_bytes == zygote.spec.scratch_bytes
