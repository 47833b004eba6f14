"""Opening files that may be on a file system which does not answer: NFS without its server, FUSE without its program.

A call that waits for one cannot be called off, so it is made in a thread that may be left behind.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Final

from runvisor.policies.errors import PoolExhausted

OPENING_S: Final = 5.0
"""How long a file system may take to open a file."""
MAX_OPENING: Final = 32
"""Threads that open files, in this process, with those that were left behind."""
_openings = threading.BoundedSemaphore(MAX_OPENING)


def open_within(work: Callable[[], int], limit_s: float | None = None) -> int:
    """Open something in a thread of its own, which ends with it.

    Args:
        work: Returns a descriptor; may change its thread's rights. What it returns too late is closed.
        limit_s: How long to wait for it, in seconds; `OPENING_S` by default.

    Returns:
        The descriptor, the caller's to close.

    Raises:
        TimeoutError: It took longer; the thread is left behind, and ends when the file system answers.
        PoolExhausted: So many were left behind that no more are begun.

    Example:
        >>> fd = open_within(lambda: os.open("/", os.O_RDONLY))
        >>> os.close(fd)
    """
    if not _openings.acquire(blocking=False):
        raise PoolExhausted(
            f"{MAX_OPENING} files are being opened on file systems that do not answer",
            "program",
            "see which mount hangs; unmount it with umount -f, or bring back its server",
            {"retry_after_s": OPENING_S},
        )
    limit_s = OPENING_S if limit_s is None else limit_s
    opened: Future[int] = Future()
    # A daemon: the interpreter ends without it.
    thread = threading.Thread(target=_open, args=(work, opened), name="observed-file", daemon=True)
    try:
        thread.start()
    except BaseException:
        _openings.release()
        raise
    try:
        return opened.result(limit_s)
    except TimeoutError:
        if opened.cancel():
            raise TimeoutError(f"its file system has not answered for {limit_s:g} s") from None
        return opened.result()  # at the last moment


def _open(work: Callable[[], int], opened: Future[int]) -> None:
    try:
        fd = work()
    except BaseException as error:
        with contextlib.suppress(InvalidStateError):  # nobody waits any more
            opened.set_exception(error)
    else:
        try:
            opened.set_result(fd)
        except InvalidStateError:
            os.close(fd)
    finally:
        _openings.release()
