"""Resource limits that the kernel keeps per process. See setrlimit(2)."""

from __future__ import annotations

import resource
from typing import Final

_ALWAYS: Final = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_MEMLOCK: 64 * 1024,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_SIGPENDING: 256,
    resource.RLIMIT_NOFILE: 256,
}
_MAX_THREADS: Final = 128
_SLACK_BYTES: Final = 16 * 1024 * 1024
PAGE_BYTES: Final = resource.getpagesize()


def lower(limit: int, value: int) -> None:
    """Set a soft and hard limit, never above the hard limit that is in force."""
    _, hard = resource.getrlimit(limit)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (bound, bound))


def apply_fixed_limits(file_bytes: int, *, own_user: bool) -> None:
    """Apply the limits that do not depend on a grant.

    Args:
        file_bytes: Largest file that may be written; the scratch is no larger.
        own_user: The kernel counts this process's threads apart from every other's.
    """
    for limit, value in _ALWAYS.items():
        lower(limit, value)
    if own_user:
        lower(resource.RLIMIT_NPROC, _MAX_THREADS)
    lower(resource.RLIMIT_FSIZE, file_bytes)


def apply_cpu_limit(cpu_s: float) -> None:
    """Let the kernel kill the process when its CPU time runs out.

    Soft and hard limit are the same: process 1 of a namespace is spared
    SIGXCPU, but not the SIGKILL at the hard limit.

    Args:
        cpu_s: Seconds; the kernel counts whole ones, so it is rounded up.
    """
    lower(resource.RLIMIT_CPU, max(1, -int(-cpu_s // 1)))


def keep_reserve() -> int:
    """Keep a part of the bound on private memory for the answer, where the host has set such a bound.

    What is refused then is refused a little early; `use_reserve` lifts that.

    Returns:
        The bound that is in force now; `resource.RLIM_INFINITY` is none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        soft = max(0, hard - _SLACK_BYTES)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    return soft


def use_reserve() -> None:
    """Allow all that the host allows: the answer of a task that has filled its memory needs room too."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def mapped_bytes() -> int:
    """Return the size of this process's address space."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * PAGE_BYTES


def apply_address_space_limit(limit_bytes: int) -> None:
    """Let allocations fail in the guest, as MemoryError, before the cgroup kills it.

    A little more can be had by `AddressReserve`, for saying so.

    Args:
        limit_bytes: What may be mapped, counting what is mapped already.
    """
    lower(resource.RLIMIT_AS, limit_bytes + _SLACK_BYTES)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (min(limit_bytes, hard), hard))


class AddressReserve:
    """The part of the bound on address space that is kept for the answer.

    The answer of a task that has filled its memory needs room too.
    """

    def __init__(self) -> None:
        self._kept: int | None = None

    def use(self) -> None:
        """Allow all that the host allows, until `keep`; may be called again meanwhile."""
        if self._kept is None:
            self._kept, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

    def keep(self) -> None:
        """Put the bound back as `use` found it."""
        if self._kept is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (self._kept, hard))
            self._kept = None


ADDRESS_RESERVE: Final = AddressReserve()
"""The one of this process."""
