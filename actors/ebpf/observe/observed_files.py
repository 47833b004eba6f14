"""Files as an observed process sees them: a path is opened with no more user's rights and capabilities than its own.

Source: man 5 proc (``root``, ``maps``, ``map_files``), man 2 openat2 (RESOLVE_IN_ROOT),
man 2 setfsuid, man 7 capabilities: such rights are a thread's own, so they are given up in one made for that;
man 2 open (O_PATH): a file is looked at before it is opened, as to open a device may be to use it.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runvisor.actors.ebpf.observe.bounded_opening import open_within
from runvisor.actors.jail import kernel
from runvisor.actors.jail.capabilities import limit_effective
from runvisor.policies.errors import ConfigError

_SETGROUPS, _SETFSUID, _SETFSGID = {"x86_64": (116, 122, 123), "aarch64": (159, 151, 152)}.get(
    kernel.MACHINE, (-1, -1, -1)
)
_MAPPING: Final = re.compile(r"([0-9a-f]+-[0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+ \d+) +(/.*)")
_EFFECTIVE: Final = 3
"""Place of the id for files in the lines ``Uid:`` and ``Gid:``."""
_NOBODY: Final = 0xFFFFFFFF
_MOST_NAMED: Final = 5
_dumpable = threading.Lock()


@dataclass(frozen=True, slots=True)
class ObservedFile:
    """An open file."""

    fd: int
    """The caller's to close."""
    path: str
    """As the kernel says it; a name that the observed may have chosen."""


def open_observed(pid: int, file: str) -> ObservedFile:
    """Open a program or library for reading.

    Args:
        pid: The observed process.
        file: A path, which leads where it leads that process, and must be readable for it; or the name of a
            file whose code it has mapped, without its path and, if one likes, without ``.so`` and what follows.

    Raises:
        ConfigError: There is no such file, or the process may not read it, or its file system does not answer.
        PoolExhausted: Too many files are being opened already.
    """
    return _open_path(pid, file) if "/" in file else _open_mapped(pid, file)


def _open_path(pid: int, path: str) -> ObservedFile:
    try:
        return ObservedFile(open_within(lambda: _open_as(pid, path)), path)
    except OSError as error:
        raise _not_opened(path, error) from None


def _open_as(pid: int, path: str) -> int:
    """Open a path with a process's rights, which this thread keeps."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    uid, gid = int(status["Uid"][_EFFECTIVE]), int(status["Gid"][_EFFECTIVE])
    groups = [int(group) for group in status["Groups"]]
    # In a user namespace of its own it has capabilities there, and none here.
    is_ours = Path(f"/proc/{pid}/ns/user").samefile("/proc/self/ns/user")
    capabilities = int(status["CapEff"][0], 16) if is_ours else 0
    with _folder(f"/proc/{pid}/root") as root, _folder("/proc/self/fd") as own:
        with _dumpable:  # another user's rights in one thread make the whole process undumpable
            before = kernel.prctl(kernel.PR_GET_DUMPABLE)
            try:
                _take_rights(uid, gid, groups, capabilities)
            finally:
                if before == 1:
                    kernel.prctl(kernel.PR_SET_DUMPABLE, before)
        place = kernel.openat2(root, path, os.O_PATH, kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS)
        return _reopened(own, place, path)


def _reopened(own: int, place: int, name: str) -> int:
    """Open for reading what is open as a place only, which is closed; ``own`` is the folder of this process's."""
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise ConfigError(f"{name[:80]} is no regular file", "program", "name a program or a library")
        return os.open(str(place), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=own)
    finally:
        os.close(place)


@contextlib.contextmanager
def _folder(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _take_rights(uid: int, gid: int, groups: list[int], capabilities: int) -> None:
    """Have this thread use files as somebody else; for threads that end soon."""
    packed = b"".join(group.to_bytes(4, "little") for group in groups)
    kernel.syscall(_SETGROUPS, len(groups), packed, what="setgroups")
    for number, wanted, what in ((_SETFSGID, gid, "setfsgid"), (_SETFSUID, uid, "setfsuid")):
        kernel.syscall(number, wanted, what=what)  # returns the id before, and never an error
        if kernel.syscall(number, _NOBODY, what=what) != wanted:
            raise PermissionError(f"{what} is refused")
    limit_effective(capabilities)  # also for uid 0, which need not have any


def _open_mapped(pid: int, name: str) -> ObservedFile:
    try:
        files = {which: (place, path) for which, place, path in _mapped(pid)}
        fitting = {which: found for which, found in files.items() if Path(found[1]).name == name}
        if not fitting:
            begins = (f"{name}.so", f"{name}-")
            fitting = {which: found for which, found in files.items() if Path(found[1]).name.startswith(begins)}
        if len(fitting) != 1:
            raise _no_one(name, sorted({path for _, path in (fitting or files).values()}), several=bool(fitting))
        ((place, path),) = fitting.values()
        return ObservedFile(open_within(lambda: _open_place(pid, place, path)), path)
    except OSError as error:
        raise _not_opened(name, error) from None


def _open_place(pid: int, place: str, name: str) -> int:
    """Open a file that a process has mapped at a place, with our rights: that process has its code already."""
    with _folder("/proc/self/fd") as own:
        return _reopened(own, os.open(f"/proc/{pid}/map_files/{place}", os.O_PATH | os.O_CLOEXEC), name)


def _mapped(pid: int) -> Iterator[tuple[str, str, str]]:
    """Yield which file each piece of mapped code is of, where it is mapped, and the file's path."""
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        found = _MAPPING.fullmatch(line)
        if found is not None:
            yield found[2], found[1], found[3].removesuffix(" (deleted)")


def _no_one(name: str, paths: list[str], *, several: bool) -> ConfigError:
    names = ", ".join(path if several else Path(path).name for path in paths[:_MOST_NAMED])
    what = f"several files called {name}" if several else f"no code of a file called {name}"
    return ConfigError(f"the process has mapped {what}", "program", f"use one of: {names}" if names else "")


def _not_opened(file: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"{file[:80]} cannot be opened as the observed process would: {error.strerror or error}",
        "program",
        "give the path as that process sees it, of a file that it may read",
    )
