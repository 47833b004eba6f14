"""System-call allow-lists, compiled by libseccomp for the machine at hand.

Compiled once in the zygote, loaded in each child with one system call that
binds every thread. Whatever is not listed fails with EPERM. ``clone3`` fails
with ENOSYS, so that glibc falls back to ``clone``, whose flags a filter can
see. See seccomp(2) and syscalls(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final, NamedTuple

from runvisor.actors.jail import kernel
from runvisor.actors.jail.spec import SyscallList

_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}.get(kernel.MACHINE, -1)
_SET_MODE_FILTER: Final = 1
_TSYNC: Final = 1

_FILES: Final = """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range dup dup2 dup3
    fsync fdatasync ftruncate truncate lseek open openat openat2 creat stat fstat lstat newfstatat
    statx access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir mkdir mkdirat
    rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat chmod fchmod fchmodat utimensat
    utime utimes futimesat umask statfs fstatfs fallocate fadvise64 copy_file_range sendfile
""".split()
_MEMORY: Final = "mmap mprotect munmap mremap madvise brk msync mincore pkey_alloc pkey_free pkey_mprotect".split()
_SIGNALS_AND_TIME: Final = """
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack kill tgkill
    tkill pause alarm setitimer getitimer timer_create timer_settime timer_gettime timer_delete timer_getoverrun
    timerfd_create timerfd_settime timerfd_gettime nanosleep clock_nanosleep clock_gettime clock_getres
    gettimeofday time times restart_syscall
""".split()
_PROCESS: Final = """
    getrusage sysinfo uname getrandom getpid getppid gettid getuid geteuid getgid getegid getgroups getresuid
    getresgid getpgrp getpgid getsid getpriority sched_yield sched_getaffinity sched_getparam sched_getscheduler
    sched_get_priority_max sched_get_priority_min futex futex_waitv set_robust_list get_robust_list
    set_tid_address rseq membarrier arch_prctl getcpu exit exit_group getrlimit setrlimit wait4 waitid
""".split()
_WAITING: Final = """
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
    eventfd2 pipe pipe2 recvfrom recvmsg sendto sendmsg shutdown getsockname getpeername
""".split()
_SPAWNING: Final = "execve execveat fork vfork setpgid setsid memfd_create prctl ioctl fcntl flock".split()

_CLONE_THREAD: Final = 0x00010000
_CLONE_NEW_ANY: Final = 0x7E020000 | 0x80  # every namespace flag, CLONE_NEWTIME included
_AF_UNIX: Final = 1
_SOCKET_TYPE: Final = 0xF
_CONNECTED_TYPES: Final = (1, 5)  # stream and seqpacket; a datagram socket could be sent to any address
_SOL_SOCKET: Final = 1
_AF_INET: Final = 2
_STREAM: Final = 1
_TCP: Final = 6
_TCP_OPTIONS: Final = ((_SOL_SOCKET, 2), (_SOL_SOCKET, 9), (_TCP, 1), *((_TCP, n) for n in (3, 4, 5, 6, 18)))
_READ_OPTIONS: Final = (3, 4, 7, 8, 20, 21, 30, 38, 39, 66, 67)  # what it is, its error, buffers, time-outs
_SET_OPTIONS: Final = (7, 8, 20, 21, 66, 67)  # buffers and time-outs: no filter program, no peer's pidfd
# Descriptors and their flags, the size of a pipe (but not to set it: what lies in one is output that the host
# has yet to count), and the record locks that SQLite needs. No F_GETLK, no flock(2): on a file that two
# sandboxes can read, they would be a channel between them.
_FCNTL_COMMANDS: Final = (0, 1, 2, 3, 4, 6, 7, 1030, 1032)
_SEAL_COMMANDS: Final = (1033, 1034)
_PRCTL_OPTIONS: Final = (3, 15, 16, 23, 0x53564D41)  # get dumpable, set/get name, read bounding set, name a mapping
_IOCTLS: Final = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # tty queries, FIONREAD, FIONBIO, close-on-exec


class FilterKind(NamedTuple):
    """Which filter binds a sandbox: one kind has the same instructions in every process."""

    syscalls: SyscallList
    networked: bool
    """Also what a TCP client needs, whose connections end at the broker's listeners."""


def filter_code(kind: FilterKind) -> bytes:
    """Compile a filter to what the kernel loads: instructions of classic BPF."""
    return _compile(kind.syscalls, networked=kind.networked)


class Filter:
    """A compiled allow-list, ready to be loaded by any child of this process.

    Args:
        kind: Which list.
    """

    def __init__(self, kind: FilterKind) -> None:
        code = filter_code(kind)
        self._code = ctypes.create_string_buffer(code, len(code))
        self._program = _Program(len(code) // 8, ctypes.addressof(self._code))

    def load(self) -> None:
        """Bind every thread of the process to the list for good (needs no_new_privs)."""
        address = ctypes.addressof(self._program)
        refused = kernel.syscall(_SECCOMP, _SET_MODE_FILTER, _TSYNC, address, what="seccomp")
        if refused:  # TSYNC returns the id of a thread that could not be bound
            raise OSError(errno.EBUSY, f"seccomp could not bind thread {refused}")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _compile(syscalls: SyscallList, *, networked: bool) -> bytes:
    import pyseccomp as libseccomp

    allow = libseccomp.ALLOW
    rules = libseccomp.SyscallFilter(defaction=libseccomp.ERRNO(errno.EPERM))
    names = _FILES + _MEMORY + _SIGNALS_AND_TIME + _PROCESS + _WAITING
    if syscalls == "compiler":
        names = names + _SPAWNING
    if syscalls == "engine":
        names = [*names, "memfd_create"]  # Wasmtime shares the pages of a module's initial memory through one
    if syscalls == "bpf":
        names = [*names, "bpf"]
    for name in names:
        try:
            rules.add_rule(allow, name)
        except OSError:  # not a system call of this architecture
            continue
        except RuntimeError:  # unknown to this libseccomp
            continue

    def allow_if(name: str, *conditions: tuple[int, int, int]) -> None:
        """Allow a call when every (argument, mask, value) holds."""
        rules.add_rule(
            allow, name, *(libseccomp.Arg(i, libseccomp.MASKED_EQ, mask, value) for i, mask, value in conditions)
        )

    whole = 0xFFFFFFFF
    if syscalls == "compiler":
        allow_if("clone", (0, _CLONE_NEW_ANY, 0))
    else:
        allow_if("clone", (0, _CLONE_THREAD | _CLONE_NEW_ANY, _CLONE_THREAD))
        for option in _PRCTL_OPTIONS:
            allow_if("prctl", (0, whole, option))
        for request in _IOCTLS:
            allow_if("ioctl", (1, whole, request))
        for command in _FCNTL_COMMANDS + (_SEAL_COMMANDS if syscalls == "engine" else ()):
            allow_if("fcntl", (1, whole, command))
    for kind in _CONNECTED_TYPES:
        allow_if("socketpair", (0, whole, _AF_UNIX), (1, _SOCKET_TYPE, kind))
    for option in _READ_OPTIONS:
        allow_if("getsockopt", (1, whole, _SOL_SOCKET), (2, whole, option))
    for option in _SET_OPTIONS:
        allow_if("setsockopt", (1, whole, _SOL_SOCKET), (2, whole, option))
    if networked:
        for protocol in (0, _TCP):  # no other: MPTCP would pass by Landlock's rules for ports
            allow_if("socket", (0, whole, _AF_INET), (1, _SOCKET_TYPE, _STREAM), (2, whole, protocol))
        rules.add_rule(allow, "connect")
        for level, option in _TCP_OPTIONS:
            allow_if("setsockopt", (1, whole, level), (2, whole, option))
            allow_if("getsockopt", (1, whole, level), (2, whole, option))
    allow_if("prlimit64", (0, whole, 0))
    rules.add_rule(libseccomp.ERRNO(errno.ENOSYS), "clone3")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(reader, "rb") as source:
        with os.fdopen(writer, "wb") as sink:
            rules.export_bpf(sink)
        return source.read()
