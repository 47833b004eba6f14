"""Names and numbers of system calls on this machine, as libseccomp knows them."""

from __future__ import annotations

import functools


@functools.lru_cache(maxsize=1024)
def system_call_name(number: int) -> str:
    """Return the name of a system call, or its number as text.

    Example:
        >>> system_call_name(100_000)
        'number 100000'
    """
    import pyseccomp

    try:
        name = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, number)
    except ValueError:  # newer than this libseccomp
        return f"number {number}"
    return name.decode() if isinstance(name, bytes) else str(name)


def system_call_number(name: str) -> int | None:
    """Return the number of a system call, or None if this machine has none of the name.

    Example:
        >>> system_call_name(system_call_number("openat"))
        'openat'
    """
    import pyseccomp

    try:
        number = int(pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))
    except ValueError:
        return None
    return number if number >= 0 else None
