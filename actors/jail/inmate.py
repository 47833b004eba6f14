"""A child of a zygote, from fork to exit: each layer in its order, then the guest.

Everything that does not depend on a grant is in force before the child says
``ready``; guest bytes are decoded only after that.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import capabilities, kernel, limits, mounts
from runvisor.actors.jail.landlock import Ruleset
from runvisor.actors.jail.seccomp import Filter
from runvisor.actors.jail.spec import JailSpec

_CHANNEL_FD: Final = 3


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a child keeps of its zygote's descriptors."""

    channel: int
    stdout: int
    stderr: int
    cgroup: int
    """The slot's cgroup.procs, open for writing."""


def become_inmate(
    spec: JailSpec,
    guest: ModuleType,
    descriptors: Descriptors,
    *,
    uid: int,
    scratch_bytes: int,
    shown: list[str],
    filters: Filter,
) -> None:
    """Seal the calling process, serve the guest and exit; never returns.

    Called in a freshly forked, single-threaded child that is process 1 of its
    pid namespace.
    """
    status = 70
    try:
        os.setsid()
        os.write(descriptors.cgroup, b"0")
        _keep_only(descriptors)
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
        mounts.mount_proc()
        mounts.mount_scratch(scratch_bytes, executable=spec.syscalls == "compiler", shown=shown)
        limits.apply_fixed_limits(scratch_bytes)
        capabilities.lock_privileges()
        writable = (mounts.SCRATCH,)
        Ruleset(readable=[*shown, "/proc"], writable=writable, devices=mounts.DEVICES).enforce()
        prepared = guest.prepare(dict(spec.options))
        capabilities.drop_privileges(uid, spec.capabilities)
        # The three settings below are lost with a change of uid, so they follow it.
        kernel.prctl(kernel.PR_SET_DUMPABLE, 1)
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        filters.load()
        channel = FrameSocket(socket.socket(fileno=_CHANNEL_FD))
        channel.send({"op": "ready"})
        guest.serve(channel, prepared)
        status = 0
    except BaseException as error:  # the last line of a process: report, then leave
        os.write(2, f"{type(error).__name__}: {error}\n".encode(errors="replace")[:2000])
    finally:
        os._exit(status)


def _keep_only(descriptors: Descriptors) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    # First out of the way of 0 to 3, so that no dup2 closes one that is still needed.
    high = [_dup_above(fd) for fd in (descriptors.stdout, descriptors.stderr)]
    channel = _dup_above(descriptors.channel)
    os.dup2(null, 0)
    os.dup2(high[0], 1)
    os.dup2(high[1], 2)
    os.dup2(channel, _CHANNEL_FD)
    os.closerange(_CHANNEL_FD + 1, 1 << 16)


def _dup_above(fd: int) -> int:

    return fcntl.fcntl(fd, fcntl.F_DUPFD, 64)
