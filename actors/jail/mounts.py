"""The read-only root that a zygote and its children see.

A fresh tmpfs with bind mounts of the system's and the interpreter's folders
at their own paths, onto fresh 0755 parents: a checkout under /tmp or in a
0700 home works, and nothing else of the host exists.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from runvisor.actors.jail import kernel

_SYSTEM: Final = ("/usr", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/localtime", "/etc/alternatives")
_LINKS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SCRATCH: Final = "/tmp"
_STAGING: Final = "/tmp"  # any directory that exists; the tmpfs over it is private to the zygote
_OLD_ROOT: Final = ".old"
_PRELOAD_SCRATCH_BYTES: Final = 64 << 20


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

    The process must be in a mount namespace of its own. /proc is left
    unmounted; each child mounts its own.

    Args:
        readable: Host paths to show, beside the system's.

    Returns:
        The paths that are shown, for Landlock.
    """
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    shown = [path for path in _outermost((*_SYSTEM, *readable)) if Path(path).exists()]
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*shown, *DEVICES) if Path(path).exists()}
    links = {path: str(Path(path).readlink()) for path in _LINKS if Path(path).is_symlink()}
    plain = [path for path in _LINKS if Path(path).is_dir() and path not in links]
    sources.update({path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in plain})

    root = _STAGING
    kernel.mount("tmpfs", root, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=4m,mode=755")
    # Sources are opened first and bound through /proc/self/fd: the new tmpfs may hide their paths.
    for path, fd in sources.items():
        _bind(f"/proc/self/fd/{fd}", root + path, is_device=path in DEVICES)
        os.close(fd)
    for path, target in links.items():
        if not os.path.lexists(root + path):
            Path(root + path).symlink_to(target)
    for folder in ("/proc", SCRATCH, "/etc", f"/{_OLD_ROOT}"):
        Path(root + folder).mkdir(mode=0o755, parents=True, exist_ok=True)
    Path(root + "/etc/passwd").write_text("guest:x:65534:65534:guest:/tmp:/usr/sbin/nologin\n")
    os.chdir(root)
    kernel.pivot_root(".", _OLD_ROOT)
    os.chdir("/")
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    kernel.unmount(f"/{_OLD_ROOT}")
    Path(f"/{_OLD_ROOT}").rmdir()
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount(None, "/", None, flags)
    # For what packages write while they are preloaded; each child mounts its own over it.
    mount_scratch(_PRELOAD_SCRATCH_BYTES, executable=False, shown=shown)
    return [*shown, *plain]


def _bind(source: str, target: str, *, is_device: bool) -> None:
    if Path(source).is_dir():
        Path(target).mkdir(mode=0o755, parents=True, exist_ok=True)
    else:
        Path(target).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        Path(target).touch()
    kernel.mount(source, target, None, kernel.MS_BIND | kernel.MS_REC)
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_NOSUID
    flags |= kernel.MS_NOEXEC if is_device else kernel.MS_RDONLY | kernel.MS_NODEV
    kernel.mount(None, target, None, flags)


def mount_proc() -> None:
    """Give the calling child a /proc that shows its own pid namespace and nothing else."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags, "subset=pid,hidepid=invisible")


def mount_scratch(scratch_bytes: int, *, executable: bool, shown: Iterable[str]) -> None:
    """Put an empty scratch over /tmp and go there.

    What is shown and lies under /tmp, such as a checkout, is shown again on top of it.

    Args:
        scratch_bytes: Its size; its pages count against the memory cgroup.
        executable: Whether files in it may be executed (compilers need it).
        shown: The paths of `enter_read_only_root`.
    """
    covered = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in shown if path.startswith(SCRATCH + "/")}
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | (0 if executable else kernel.MS_NOEXEC)
    kernel.mount("tmpfs", SCRATCH, "tmpfs", flags, f"size={scratch_bytes},mode=1777,nr_inodes=16384")
    for path, fd in covered.items():
        _bind(f"/proc/self/fd/{fd}", path, is_device=False)
        os.close(fd)
    os.chdir(SCRATCH)
