"""A child of a zygote, from fork to exit: each layer in its order, then the guest.

Everything that does not depend on a grant is in force before the child says
``ready``; guest bytes are decoded only after that. What it says then, before
any guest code has run, is the report of what is really in force.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import capabilities, kernel, limits, mounts
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.landlock import Ruleset
from runvisor.actors.jail.namespaces import enter_user_namespace
from runvisor.actors.jail.seccomp import Filter
from runvisor.actors.jail.spec import ALL_LAYERS, EGRESS_FILTER, USER_NAMESPACE, JailSpec

_CHANNEL_FD: Final = 3
_INNER_UID: Final = 1000
_HOSTNAME: Final = "sandbox"


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a child keeps of its zygote's descriptors."""

    channel: int
    stdout: int
    stderr: int
    joins: Sequence[int] = ()
    """The cgroup.procs of each of its groups, open for writing."""
    bound: Sequence[int] = ()
    """A detached mount for each of the view's bound places."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What one child is told of itself, beside its spec."""

    uid: int
    scratch_bytes: int
    scratch: str
    """Its writable folder, where it has no mounts of its own."""
    view: mounts.View | None = None
    """What its grant adds to what it sees; None adds nothing."""
    network: NetworkPlan | None = None
    """Its way out, if its grant names hosts."""
    is_filtered: bool = False
    """One of its groups has the kernel egress filter."""
    folder: str = ""
    """Where it starts, if its view has that place; empty is its scratch."""


def become_inmate(
    spec: JailSpec,
    layers: frozenset[str],
    guest: ModuleType,
    descriptors: Descriptors,
    admission: Admission,
    *,
    shown: list[str],
    filters: Filter,
) -> None:
    """Seal the calling process, serve the guest and exit; never returns.

    Called in a freshly forked, single-threaded child that is process 1 of its
    pid namespace, if it has one.
    """
    status = 70
    try:
        os.setsid()
        for join in descriptors.joins:
            os.write(join, b"0")
        bound = _keep_only(descriptors)
        kernel.unshare(_namespaces(layers))
        if "ipc and uts namespaces" in layers:
            socket.sethostname(_HOSTNAME)
        listeners = inside.prepare(admission.network) if admission.network is not None else []
        if admission.network is not None and admission.is_filtered and inside.is_filtered():
            layers |= {EGRESS_FILTER}
        folders = _arrange_files(spec, layers, admission, shown, bound)
        if USER_NAMESPACE in layers:
            # A namespace inside the one that owns the mounts: what is held in here is held over nothing.
            enter_user_namespace(_INNER_UID)
        if "rlimits" in layers:
            own_user = "own uid" in layers or USER_NAMESPACE in layers
            limits.apply_fixed_limits(admission.scratch_bytes, own_user=own_user)
        if "no_new_privs" in layers:
            capabilities.lock_privileges()
        if "landlock" in layers:
            _rules(layers, admission, shown).enforce()
        prepared = guest.prepare(dict(spec.options))
        _drop_privileges(spec, layers, admission.uid)
        # The three settings below are lost with a change of uid, so they follow it.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if "seccomp allow-list" in layers:
            filters.load()
        channel = FrameSocket(socket.socket(fileno=_CHANNEL_FD))
        report = {"op": "ready", "layers": [layer for layer in ALL_LAYERS if layer in layers], "folders": len(folders)}
        channel.send(report, [*folders, *(listener.fileno() for listener in listeners)])
        for folder in folders:
            os.close(folder)
        for listener in listeners:
            listener.close()
        guest.serve(channel, prepared)
        status = 0
    except BaseException as error:  # the last line of a process: report, then leave
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace")[:2000])
    finally:
        os._exit(status)


def await_end(channel: FrameSocket) -> None:
    """Sleep after an answer until the host ends this process.

    For guests whose answer is waited for: ending takes down the memory first, for
    a millisecond or more, on the core where the host may be about to wake up.
    """
    channel.receive()


def _namespaces(layers: frozenset[str]) -> int:
    flags = kernel.CLONE_NEWNS if _has_own_files(layers) else 0
    if "network namespace, empty" in layers:
        flags |= kernel.CLONE_NEWNET
    if "ipc and uts namespaces" in layers:
        flags |= kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    return flags


def _has_own_files(layers: frozenset[str]) -> bool:
    return "mount namespace, read-only root" in layers


def _arrange_files(
    spec: JailSpec, layers: frozenset[str], admission: Admission, shown: list[str], bound: Sequence[int]
) -> list[int]:
    """Give the child its own view of the files; return the folders that the host reads and fills."""
    if not _has_own_files(layers):
        os.chdir(admission.scratch)
        return []
    view = admission.view
    if view is None:
        mounts.mount_proc()
    else:
        etc = admission.network.files if admission.network is not None else {}
        mounts.enter_granted_root(shown, view, bound, etc)
    folders = mounts.mount_scratch(
        admission.scratch_bytes,
        executable=spec.syscalls == "compiler",
        shown=[*shown, *(view.bound if view else ())],
        staged=view.staged if view else (),
    )
    if admission.folder and Path(admission.folder).is_dir():
        os.chdir(admission.folder)
    return folders


def _rules(layers: frozenset[str], admission: Admission, shown: list[str]) -> Ruleset:
    # Without a /proc of its own a child may see itself there, and nobody else.
    readable, writable = [*shown, "/proc" if _has_own_files(layers) else "/proc/self"], [admission.scratch]
    if _has_own_files(layers):
        readable.append(mounts.IN)
        writable.append(mounts.OUT)
    if admission.view is not None:
        readable += admission.view.bound
        for place, may_write in admission.view.staged:
            (writable if may_write else readable).append(place)
    if admission.network is not None:
        readable += admission.network.files
    ports = admission.network.ports if admission.network is not None else ()
    return Ruleset(readable=readable, writable=writable, devices=mounts.DEVICES, connect_ports=ports)


def _drop_privileges(spec: JailSpec, layers: frozenset[str], uid: int) -> None:
    if "no capabilities" in layers:
        capabilities.drop_from_bounding_set(spec.capabilities)
    if "own uid" in layers:
        capabilities.become(uid, spec.capabilities)
    if "no capabilities" in layers:
        capabilities.drop_capabilities(spec.capabilities)


def _keep_only(descriptors: Descriptors) -> list[int]:
    """Close every descriptor but those of the child; return the mounts, which have moved."""
    null = os.open("/dev/null", os.O_RDONLY)
    # First out of the way of what follows, so that no dup2 closes one that is still needed.
    wanted = [null, descriptors.stdout, descriptors.stderr, descriptors.channel, *descriptors.bound]
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64 + len(wanted)) for fd in wanted]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=number < _CHANNEL_FD)
    os.closerange(len(wanted), 1 << 16)
    return list(range(_CHANNEL_FD + 1, len(wanted)))
