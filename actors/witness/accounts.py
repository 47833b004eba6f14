"""A pool's side of the witness: it registers an execution, reads what the kernel counted, and strikes it off.

A pool holds its own descriptors of the attachments: as long as it can read an account,
the programs run, and what it reads is whole.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.channel.unix import peer_uid
from runvisor.actors.jail import kernel
from runvisor.actors.witness.programs import ACCOUNTS, PROGRAMS, SHARED, filter_number
from runvisor.actors.witness.registered import Registered
from runvisor.policies.errors import ProtocolError
from runvisor.policies.witness import ACCOUNT_BYTES, FILTER, WORDS, KernelUsage, read_words

if TYPE_CHECKING:
    from runvisor.actors.jail.seccomp import FilterKind
    from runvisor.policies.witness import Words

_MEMBARRIER: Final = {"x86_64": 324, "aarch64": 283}.get(kernel.MACHINE, -1)
_GLOBAL: Final = 1
_GRACE_S: Final = 0.1
_RECYCLED_S: Final = 0.2
"""How long to wait for an account that was used to be fit for use again; some milliseconds, as a rule."""
_CONNECT_S: Final = 5.0
_DESCRIPTORS: Final = len(SHARED) + len(PROGRAMS)
ENDED: Final = "the process that counts has ended; start the supervisor anew"


class NotCounted(Exception):
    """The kernel does not count an execution; the text says why."""


class Accounts:
    """The accounts that one pool may use. Safe from many threads.

    Args:
        channel: To the witness, which has just been connected.

    Raises:
        NotCounted: The witness gives none.
    """

    def __init__(self, channel: FrameSocket) -> None:
        self._channel = channel
        message, fds = channel.receive_with_fds(_DESCRIPTORS)
        if message is None or message.get("op") != "accounts" or len(fds) != _DESCRIPTORS:
            for fd in fds:
                os.close(fd)
            raise NotCounted(str((message or {}).get("what", ENDED)))
        ids, accounts, change, *self._links = fds
        self._registered = Registered(ids, change)
        memory = mmap.mmap(accounts, -(-ACCOUNTS * ACCOUNT_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE)
        self._words: Words = np.frombuffer(memory, np.uint64, ACCOUNTS * WORDS).reshape(ACCOUNTS, WORDS)
        os.close(accounts)
        self._lock = threading.Lock()
        self._free: SimpleQueue[int] = SimpleQueue()
        self._retired: SimpleQueue[tuple[int | None, int] | None] = SimpleQueue()
        """Accounts to be struck off, and for whom: nobody where it was never given; None is the end."""
        self._open = 0
        self._ended = ""
        self._names = _names()
        for number in message["numbers"]:
            self._retired.put((None, number))
        self._recycle_waiting()
        channel.settimeout(None)
        for work in (self._recycle, self._hear):
            threading.Thread(target=work, name="witness", daemon=True).start()

    @classmethod
    def connect(cls, path: str, wanted: int) -> Self:
        """Ask a witness on this node for accounts.

        Args:
            path: Its socket.
            wanted: How many executions there may be at once, with some to spare.

        Raises:
            NotCounted: No witness answers there, or it has none left.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel = FrameSocket(sock)
        try:
            sock.settimeout(_CONNECT_S)
            if not Path(path).exists():
                raise NotCounted("no process counts on this node: it has ended, or runs on another")
            sock.connect(path)
            if peer_uid(sock) not in (0, os.geteuid()):
                raise NotCounted("another user answers in place of the process that counts")
            channel.send({"op": "open", "accounts": wanted})
            return cls(channel)
        except (OSError, ProtocolError) as error:
            channel.close()
            raise NotCounted(f"the process that counts does not answer: {error}") from None
        except NotCounted:
            channel.close()
            raise

    @property
    def ended(self) -> str:
        """Why nothing more is counted; empty while it is."""
        return self._ended

    def open(self, identity: int | None, bound_by: FilterKind | None = None) -> Account:
        """Register a child; each system call of it that ends from now on is counted.

        Args:
            identity: From `runvisor.actors.jail.unified.identity_of`.
            bound_by: The filter that answers for the kernel to some of its calls.

        Raises:
            NotCounted: It cannot be; the text says why.
        """
        if identity is None:
            raise NotCounted("the sandbox has no cgroup of its own in a v2 hierarchy")
        try:
            its_filter = filter_number(bound_by)
        except ValueError:
            raise NotCounted("the programs that count do not know the filter of such a sandbox") from None
        with self._lock:
            if self._ended:
                raise NotCounted(self._ended)
            self._open += 1
        try:
            number = self._free.get(timeout=_RECYCLED_S)
        except Empty:
            self._leave(None, None)
            raise NotCounted("more executions at once than there are accounts") from None
        self._words[number, FILTER] = its_filter
        try:
            with self._lock:
                self._registered.add(identity, number)
        except OSError as error:
            self._leave(None, number)
            raise NotCounted(f"the kernel does not register the sandbox: {error}") from None
        return Account(self, identity, number)

    def words(self, number: int) -> Words:
        """Return the counters of an account as they are now."""
        words: Words = self._words[number].copy()
        return words

    def usage(self, words: Words) -> KernelUsage:
        """Return what counters say, with the names of system calls."""
        return read_words(words, self._names)

    def strike_off(self, identity: int, number: int) -> None:
        """Soon count a child no more, and then let another have its account, once no core still writes to it."""
        self._leave(identity, number)

    def _leave(self, identity: int | None, number: int | None) -> None:
        """End what `open` began, and give its account back if it had one."""
        with self._lock:
            self._open -= 1
            is_last = bool(self._ended) and not self._open
        if is_last:
            self._let_go()
        elif number is not None:
            self._retired.put((identity, number))

    def close(self) -> None:
        """Give everything back as soon as nothing is open any more; nothing new is counted. Closing twice is fine."""
        self._end("the pool is closed")

    def _end(self, reason: str) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = reason
            is_last = not self._open
        if is_last:
            self._let_go()

    def _let_go(self) -> None:
        """Drop the attachments, which ends them when this was the last process to hold them.

        The witness hears of it no earlier: it strikes off what this pool has
        registered, and gives its accounts to others.
        """
        with contextlib.suppress(OSError):
            self._channel.shutdown()
        self._retired.put(None)
        for link in self._links:
            os.close(link)
        self._registered.close()
        self._words = np.empty((0, WORDS), np.uint64)  # the last reference to the mapping

    def _hear(self) -> None:
        """Wait until the witness ends: it sends nothing more."""
        with contextlib.suppress(OSError, ProtocolError):
            self._channel.receive()
        self._end(ENDED)
        self._channel.close()

    def _recycle(self) -> None:
        while self._recycle_waiting():
            pass

    def _recycle_waiting(self) -> bool:
        """Strike off what was given back, and zero it as soon as no program that knew it still runs."""
        retired = [self._retired.get()]
        while not self._retired.empty():
            retired.append(self._retired.get())
        numbers: list[int] = []
        with self._lock:
            if self._ended:  # what is registered still is struck off by the witness, or goes with it
                return False
            left: list[tuple[int, int]] = []
            for each in retired:
                assert each is not None
                identity, number = each
                numbers.append(number)
                if identity is not None:
                    left.append((identity, number))
            self._registered.remove(left)
        settle()
        with self._lock:
            if self._ended:
                return False
            for number in numbers:
                self._words[number] = 0
                self._free.put(number)
        return True


class Account:
    """One execution's account, until it is closed.

    Args:
        accounts: Whose it is.
        identity: The child.
        number: Where it is counted.
    """

    def __init__(self, accounts: Accounts, identity: int, number: int) -> None:
        self._accounts = accounts
        self._identity = identity
        self._number = number
        self._is_open = True

    def words(self) -> Words:
        """Return its counters as they are now."""
        return self._accounts.words(self._number)

    def usage(self, since: Words | None = None) -> KernelUsage:
        """Return what was counted up to now, or from an earlier reading on."""
        words = self.words()
        return self._accounts.usage(words if since is None else words - since)

    def usage_if_open(self, since: Words | None = None) -> KernelUsage | None:
        """Return the same, or None once it is closed: then the account may be another's."""
        try:
            words = self.words()
        except IndexError:  # all is given back
            return None
        if not self._is_open:
            return None
        return self._accounts.usage(words if since is None else words - since)

    def close(self) -> None:
        """Stop counting; closing twice is fine."""
        if self._is_open:
            self._is_open = False
            self._accounts.strike_off(self._identity, self._number)


def settle() -> None:
    """Wait until every program that runs now has ended.

    They run with preemption disabled, which membarrier(2) waits out; a kernel that has
    it not (``nohz_full``) is given time instead.
    """
    try:
        kernel.syscall(_MEMBARRIER, _GLOBAL, 0, 0, what="membarrier")
    except OSError:
        time.sleep(_GRACE_S)


def has_ended(pidfd: int, wait_s: float) -> bool:
    """Wait until all threads of a process have ended; say whether they have."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


def _names() -> dict[int, str]:
    """Return the names of this machine's system calls, as libseccomp knows them."""
    import pyseccomp as libseccomp

    names: dict[int, str] = {}
    for number in range(512):
        with contextlib.suppress(Exception):
            name = libseccomp.resolve_syscall(libseccomp.Arch.NATIVE, number)
            names[number] = name.decode() if isinstance(name, bytes) else str(name)
    return names
