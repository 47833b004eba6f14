"""The read-only root that a zygote and its children see.

A fresh tmpfs with bind mounts of the system's and the interpreter's folders
at their own paths, onto fresh 0755 parents: a checkout under /tmp or in a
0700 home works, and nothing else of the host exists.
"""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress.plan import CERTIFICATES

_SYSTEM: Final = (
    "/usr",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/alternatives",
    *CERTIFICATES,
)
_LINKS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SCRATCH: Final = "/tmp"
IN: Final = "/in"
OUT: Final = "/out"
_STAGING: Final = "/tmp"  # any directory that exists; the tmpfs over it is private to the zygote
_OLD_ROOT: Final = ".old"
_PRELOAD_SCRATCH_BYTES: Final = 64 << 20
_LOCKED: Final = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
"""Flags of a mount that a user namespace may not take away; statvfs(3) reports them by the same values."""


@dataclass(frozen=True, slots=True)
class View:
    """What of the host one child sees beside what its zygote shows.

    Attributes:
        bound: Where detached mounts are attached, in the order of their descriptors.
        staged: Folders that are made in the scratch and shown at these places, with whether
            the guest may write there; a descriptor of each goes to the host.
    """

    bound: tuple[str, ...] = ()
    staged: tuple[tuple[str, bool], ...] = ()


def interpreter_paths() -> tuple[str, ...]:
    """Return the host paths that this Python needs: prefixes, site-packages and this package."""
    import runvisor

    paths = {sys.prefix, sys.base_prefix, sys.exec_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    for folder in runvisor.__path__:
        paths.add(folder)
        paths.update(str(entry.resolve()) for entry in Path(folder).iterdir() if entry.is_symlink())
    return tuple(sorted(paths))


def _outermost(paths: Iterable[str]) -> list[str]:
    """Drop what lies inside another path, and follow the links in what stays."""
    real = sorted({str(Path(path).resolve()) for path in paths} | {str(Path(path).absolute()) for path in paths})
    kept: list[str] = []
    for path in real:
        if not any(path == other or path.startswith(other.rstrip("/") + "/") for other in kept):
            kept.append(path)
    return kept


def enter_read_only_root(readable: Iterable[str]) -> list[str]:
    """Make the calling process, and all it forks, see only the read-only root.

    The process must be in a mount namespace of its own.

    Args:
        readable: Host paths to show, beside the system's.

    Returns:
        The paths that are shown, for Landlock.
    """
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    shown = existing_paths(readable)
    _enter_root(shown, View(), ())
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    _leave_old_root()
    # For what packages write while they are preloaded; each child mounts its own over it.
    for folder in mount_scratch(_PRELOAD_SCRATCH_BYTES, executable=False, shown=shown):
        os.close(folder)
    return shown


def existing_paths(readable: Iterable[str]) -> list[str]:
    """Return the system's paths and these, as far as they exist, without what lies inside another."""
    shown = [path for path in _outermost((*_SYSTEM, *readable)) if Path(path).exists()]
    return shown + [path for path in _LINKS if Path(path).is_dir() and not Path(path).is_symlink()]


def enter_granted_root(shown: Iterable[str], view: View, bound: Sequence[int], files: Mapping[str, str] = {}) -> None:
    """Make a child see a root of its own: its zygote's, its own /proc, and what its grant adds.

    Args:
        shown: The paths of `enter_read_only_root`.
        view: What to add.
        bound: A detached mount for each of ``view.bound``; closed here.
        files: Texts of small files of its own, by path.
    """
    _enter_root(shown, view, bound, files)
    mount_proc()  # while the old one is still seen: a user namespace may mount no other
    _leave_old_root()


def _enter_root(shown: Iterable[str], view: View, bound: Sequence[int], files: Mapping[str, str] = {}) -> None:
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*shown, *DEVICES) if Path(path).exists()}
    links = {path: str(Path(path).readlink()) for path in _LINKS if Path(path).is_symlink()}
    root = _STAGING
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4m,mode=755")
    # Sources are opened first and bound through /proc/self/fd: the new tmpfs may hide their paths.
    for path, fd in sources.items():
        _bind(fd, root + path, is_device=path in DEVICES)
        os.close(fd)
    for path, target in links.items():
        if not os.path.lexists(root + path):
            Path(root + path).symlink_to(target)
    for folder in ("/proc", SCRATCH, IN, OUT, "/etc", f"/{_OLD_ROOT}"):
        Path(root + folder).mkdir(mode=0o755, parents=True, exist_ok=True)
    Path(root + "/etc/passwd").write_text("guest:x:65534:65534:guest:/tmp:/usr/sbin/nologin\n")
    for path, text in files.items():
        Path(root + path).write_text(text)
    for path, fd in zip(view.bound, bound, strict=True):
        _make_mountpoint(root + path, is_folder=stat.S_ISDIR(os.fstat(fd).st_mode))
        kernel.attach_mount(fd, root + path)
        os.close(fd)
    for path, _ in view.staged:
        _make_mountpoint(root + path, is_folder=True)
    os.chdir(root)
    kernel.pivot_root(".", _OLD_ROOT)
    os.chdir("/")


def _leave_old_root() -> None:
    kernel.unmount(f"/{_OLD_ROOT}")
    Path(f"/{_OLD_ROOT}").rmdir()
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount(None, "/", None, flags)


def _make_mountpoint(target: str, *, is_folder: bool) -> None:
    if is_folder:
        Path(target).mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        Path(target).touch()


def _bind(fd: int, target: str, *, is_device: bool) -> None:
    source = f"/proc/self/fd/{fd}"
    _make_mountpoint(target, is_folder=Path(source).is_dir())
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NOSUID | (os.fstatvfs(fd).f_flag & _LOCKED)
    flags |= kernel.MS_NOEXEC if is_device else kernel.MS_RDONLY | kernel.MS_NODEV
    kernel.mount(None, target, None, flags)


def mount_proc() -> None:
    """Give the calling child a /proc that shows its own pid namespace and nothing else."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags, "subset=pid,hidepid=invisible")


def mount_scratch(
    scratch_bytes: int, *, executable: bool, shown: Iterable[str], staged: Iterable[tuple[str, bool]] = ()
) -> list[int]:
    """Put an empty scratch over /tmp and go there; /in, /out and staged folders are parts of it.

    What is shown and lies under /tmp, such as a checkout, is shown again on top of it.

    Args:
        scratch_bytes: Its size, all parts together; pages that the guest writes count against its memory.
        executable: Whether files in it may be executed (compilers need it).
        shown: The paths of `enter_read_only_root`.
        staged: More places where a part of it is shown, and whether the guest may write there.

    Returns:
        Descriptors of the folders behind /in, /out and each staged place, writable for the host.
    """
    covered = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in shown if path.startswith(SCRATCH + "/")}
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | (0 if executable else kernel.MS_NOEXEC)
    kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={scratch_bytes},mode=755,nr_inodes=16384")
    own = _make_part("own", 0o1777)
    parts = [
        (place, _make_part(str(number), 0o777 if writable else 0o755), writable)
        for number, (place, writable) in enumerate([(IN, False), (OUT, True), *staged])
    ]
    kernel.mount(f"/proc/self/fd/{own}", SCRATCH, None, kernel.MS_BIND)
    os.close(own)
    # Outer places come before those inside them.
    shows: list[tuple[str, int, bool | None]] = [*parts, *((path, fd, None) for path, fd in covered.items())]
    for place, fd, writable in sorted(shows):
        if writable is None:
            _bind(fd, place, is_device=False)
            os.close(fd)
            continue
        _make_mountpoint(place, is_folder=True)
        kernel.mount(f"/proc/self/fd/{fd}", place, None, kernel.MS_BIND)
    for place, _, writable in parts:  # last: places to write in may lie inside
        if not writable:
            kernel.mount(None, place, None, kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | flags)
    os.chdir(SCRATCH)
    return [fd for _, fd, _ in parts]


def _make_part(name: str, mode: int) -> int:
    """Make a folder of the new scratch and open it; its path is about to be covered."""
    folder = Path(SCRATCH, name)
    folder.mkdir()
    folder.chmod(mode)
    return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
