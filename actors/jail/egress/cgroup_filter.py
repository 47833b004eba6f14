"""The kernel egress filter: the programs of a cgroup, and the doors that are open in it.

It stands behind the network namespace, seccomp and Landlock, and asks none of
them. It is attached once to a group, so that a child pays for joining, and it
stays while the group has a process: should everything of ours be killed but a
guest, that guest can still connect to nothing but its own dead listeners.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

from runvisor.actors.ebpf import bpf, cgroup_attach
from runvisor.actors.ebpf.maps import Map, MapKind
from runvisor.actors.jail import cgroups
from runvisor.actors.jail.egress.cgroup_programs import DOOR_BYTES, HOOKS, Hook, door, programs
from runvisor.actors.jail.egress.plan import MAX_LISTENERS
from runvisor.actors.jail.uids import Uids

_SO_NETNS_COOKIE: Final = 71
_NO_PREALLOC: Final = 1
_MAX_DOORS: Final = 2 * MAX_LISTENERS * Uids.PER_PROCESS
"""Twice as many as all children of a process can have."""
_OPEN: Final = bytes(4)
_REMOVE_TIMEOUT_S: Final = 2.0


def netns_cookie(socket_fd: int) -> int:
    """Return the number of a socket's network namespace, which no other ever has on this machine.

    Args:
        socket_fd: An IPv4 TCP socket; it stays the caller's.

    Raises:
        OSError: The kernel is older than 5.14 (ENOPROTOOPT).
    """
    # Dimensions are given, so that Python asks the kernel for none.
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=socket_fd)
    try:
        return int.from_bytes(found.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    finally:
        found.detach()


class KernelFilter:
    """The filter of one cgroup and of all groups below it. Safe to use from several threads.

    Whoever joins the group can make sockets of TCP over IPv4, outside this
    process's network namespace, and connect them to what was admitted.

    Args:
        group_fd: The group's folder, of version 2; it stays the caller's.
        hooks: Which hooks; fewer are for the tests that show what each is good for.

    Raises:
        OSError: The kernel refuses it (EPERM: CAP_BPF and CAP_NET_ADMIN are needed) or is too old; nothing
            stays attached.
    """

    def __init__(self, group_fd: int, hooks: Sequence[Hook] = HOOKS) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
            machine = netns_cookie(own.fileno())
        self._lock = threading.Lock()
        self._is_closed = False
        self._doors = Map(MapKind.HASH, DOOR_BYTES, len(_OPEN), _MAX_DOORS, flags=_NO_PREALLOC, name=b"runvisor_doors")
        try:
            _attach_all(group_fd, hooks, programs(self._doors.fd, machine))
        except BaseException:
            self._doors.close()
            raise

    def admit(self, cookie: int, ports: Sequence[int]) -> Callable[[], None]:
        """Let the sockets of a network namespace connect to some ports there.

        Args:
            cookie: The namespace's `netns_cookie`.
            ports: The ports; every address of the namespace has them.

        Returns:
            What takes it back; calling it twice, or after `close`, is fine.

        Raises:
            OSError: There is no room.
        """
        doors = [door(cookie, port) for port in ports]

        def withdraw() -> None:
            with self._lock:
                if not self._is_closed:  # else only the programs know the doors still
                    for key in doors:
                        self._doors.delete(key)

        try:
            with self._lock:
                for key in doors:
                    self._doors.update(key, _OPEN)
        except OSError:
            withdraw()
            raise
        return withdraw

    def close(self) -> None:
        """Give back the descriptor; the filter itself ends with its cgroup."""
        with self._lock:
            self._is_closed = True
            self._doors.close()


def _attach_all(group_fd: int, hooks: Sequence[Hook], code: Mapping[str, bytes]) -> None:
    """Attach all of the programs or none: a part of them would refuse what the rest was to allow."""
    with ExitStack() as when_done, ExitStack() as when_refused:
        loaded: list[tuple[Hook, int]] = []
        for hook in hooks:
            name = f"runvisor_{hook.name}".encode()
            try:
                program = bpf.load_program(code[hook.name], hook.kind, attach_type=hook.attach_type, name=name)
            except OSError as error:
                if hook.is_required or error.errno != errno.EINVAL:
                    raise
                continue
            when_done.callback(os.close, program)
            loaded.append((hook, program))
        for hook, program in loaded:
            cgroup_attach.attach(group_fd, program, hook.attach_type)
            when_refused.callback(cgroup_attach.detach, group_fd, program, hook.attach_type)
        when_refused.pop_all()


class FilteredGroup:
    """A filter, and how a child comes under it.

    Args:
        kernel_filter: The filter; owned from now on.
        folder: The group that was made for it alone; None if children are in a group of its already.
    """

    def __init__(self, kernel_filter: KernelFilter, folder: Path | None = None) -> None:
        self.filter = kernel_filter
        self._folder = folder
        self._join_fd: int | None = None
        if folder is not None:
            self._join_fd = os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)

    @classmethod
    def around(cls, group_fd: int) -> Self:
        """Attach a filter to a group of version 2 that exists.

        Args:
            group_fd: Its folder; it stays the caller's.

        Raises:
            OSError: See `KernelFilter`.
        """
        return cls(KernelFilter(group_fd))

    @classmethod
    def make(cls, name: str, parent: Path | None = None, hooks: Sequence[Hook] = HOOKS) -> Self:
        """Make a group of version 2 with a filter, and remove those that dead processes left.

        Args:
            name: Its name (see `cgroups.group_name`).
            parent: Where; None finds a place.
            hooks: See `KernelFilter`.

        Raises:
            OSError: No group can be made here (ENOENT), or see `KernelFilter`; nothing is left.
        """
        parent = parent or cgroups.find_v2_parent()
        if parent is None:
            raise FileNotFoundError(errno.ENOENT, "no cgroup of version 2 can be made")
        cgroups.sweep(parent)
        folder = parent / name
        folder.mkdir()
        group_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls(KernelFilter(group_fd, hooks), folder)
        except BaseException:
            folder.rmdir()
            raise
        finally:
            os.close(group_fd)

    @property
    def joins(self) -> tuple[int, ...]:
        """The files in which a child writes 0 to join; they stay this object's."""
        return () if self._join_fd is None else (self._join_fd,)

    def close(self) -> None:
        """Give back the descriptors, and remove the group, which must be empty by now; closing twice is fine."""
        folder, self._folder = self._folder, None
        self.filter.close()
        if self._join_fd is not None:
            os.close(self._join_fd)
            self._join_fd = None
        if folder is not None:
            cgroups.remove(folder, time.monotonic() + _REMOVE_TIMEOUT_S)
