"""The broker's system calls: an allow-list for a process that relays bytes and looks up names.

It cannot start a program or a process, listen, or be asked for more than
sockets to the internet and the kernel's list of its own addresses, which
getaddrinfo(3) reads. Whatever is not listed fails with EPERM.
"""

from __future__ import annotations

import errno
from typing import Final, Protocol

_READING_FILES: Final = """
    read readv pread64 write writev close fcntl openat open fstat stat lstat newfstatat statx lseek access faccessat
    faccessat2 readlink readlinkat getdents64 getcwd dup
""".split()
_MEMORY: Final = "mmap munmap mprotect mremap madvise brk".split()
_THREADS_AND_SIGNALS: Final = """
    futex set_robust_list rseq exit exit_group sched_yield sched_getaffinity getpid gettid getuid geteuid getgid
    getegid rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack tgkill restart_syscall uname sysinfo getrandom
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrusage
""".split()
_RELAYING: Final = """
    epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 connect accept accept4
    sendto sendmsg sendmmsg recvfrom recvmsg shutdown getsockname getpeername getsockopt setsockopt bind
""".split()
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM, _RAW = 1, 2, 3
_SOCKETS: Final = (
    (_AF_INET, _STREAM),
    (_AF_INET6, _STREAM),
    (_AF_INET, _DATAGRAM),  # questions to name servers
    (_AF_INET6, _DATAGRAM),
    (_AF_NETLINK, _RAW),
)
_NETLINK_ROUTE: Final = 0
_TYPE: Final = 0xF
"""The bits of a socket's type, without its flags."""
_THREAD: Final = 0x00010000
_NEW_NAMESPACES: Final = 0x7E020080
_IOCTLS: Final = (0x5401, 0x541B, 0x5421, 0x5451)  # terminal query, FIONREAD, FIONBIO, close-on-exec
_WHOLE: Final = 0xFFFFFFFF


class Loadable(Protocol):
    """A list that is ready."""

    def load(self) -> None:
        """Bind the calling process to it for good. See seccomp(2)."""
        ...


def relay_filter() -> Loadable:
    """Compile the list, while the files that this needs can still be read."""
    import pyseccomp as libseccomp

    rules = libseccomp.SyscallFilter(defaction=libseccomp.ERRNO(errno.EPERM))
    for name in _READING_FILES + _MEMORY + _THREADS_AND_SIGNALS + _RELAYING:
        try:
            rules.add_rule(libseccomp.ALLOW, name)
        except (OSError, RuntimeError):  # not on this architecture, or unknown to this libseccomp
            continue

    def allow_if(name: str, *conditions: tuple[int, int, int]) -> None:
        checks = (libseccomp.Arg(at, libseccomp.MASKED_EQ, mask, value) for at, mask, value in conditions)
        rules.add_rule(libseccomp.ALLOW, name, *checks)

    for family, kind in _SOCKETS:
        protocol = [(2, _WHOLE, _NETLINK_ROUTE)] if family == _AF_NETLINK else []
        allow_if("socket", (0, _WHOLE, family), (1, _TYPE, kind), *protocol)
    allow_if("socketpair", (0, _WHOLE, _AF_UNIX), (1, _TYPE, _STREAM))
    allow_if("clone", (0, _THREAD | _NEW_NAMESPACES, _THREAD))
    allow_if("prlimit64", (0, _WHOLE, 0))
    for request in _IOCTLS:
        allow_if("ioctl", (1, _WHOLE, request))
    rules.add_rule(libseccomp.ERRNO(errno.ENOSYS), "clone3")  # so that glibc falls back to clone
    compiled: Loadable = rules
    return compiled
