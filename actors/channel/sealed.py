"""Memory that is written once, sealed, and shared by descriptor: large inputs travel without a copy.

A memfd with seals against writing, growing and shrinking (memfd_create(2),
F_ADD_SEALS in fcntl(2)) can be mapped by processes that do not trust each other:
what one has read, no other can change, and nobody can make its pages vanish.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import threading
from collections.abc import Sequence
from typing import Any, Final

from runvisor.actors.channel.frames import MAX_FDS
from runvisor.policies.errors import ConfigError, InvalidTask, ProtocolError
from runvisor.policies.permissions import GiB
from runvisor.policies.values import MAX_BUFFERS, Packed, Value, unpack

MAX_SHARED_BYTES: Final = 4 * GiB
"""Shared memory of one execution, all its parts together."""
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
assert MAX_BUFFERS <= MAX_FDS


class SealedMemory:
    """A descriptor of sealed memory, and its size; owns the descriptor.

    Example:
        >>> with SealedMemory.holding(memoryview(b"table")) as memory:
        ...     memory.nbytes, bytes(memory.view())
        (5, b'table')
    """

    def __init__(self, fd: int, nbytes: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.nbytes: Final = nbytes

    @classmethod
    def holding(cls, data: memoryview) -> SealedMemory:
        """Write bytes into new memory, once, and seal it.

        Raises:
            InvalidTask: This machine has no room for them.
        """
        fd = os.memfd_create("runvisor-input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            rest = data.cast("B")
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fchmod(fd, 0o444)  # nobody who gets it may leave word in its attributes for the next
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            os.close(fd)
            raise InvalidTask(f"large inputs find no room: {error.strerror}", "inputs", "pass less") from None
        return cls(fd, data.nbytes)

    @classmethod
    def received(cls, fd: int) -> SealedMemory:
        """Check a descriptor that a client sent, and open its memory anew, for reading only.

        A description of its own has a file offset of its own: executions that
        share the memory share nothing else.

        Args:
            fd: Stays the caller's.

        Raises:
            ProtocolError: It is not sealed memory.
        """
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            status = os.fstat(fd)
        except OSError:
            raise ProtocolError("a shared input is no memory file", "shared") from None
        if seals & _SEALS != _SEALS or not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= MAX_SHARED_BYTES:
            raise ProtocolError("a shared input is not sealed, or empty, or too large", "shared")
        with contextlib.suppress(PermissionError):  # another user's: then its mode is not ours to change
            os.fchmod(fd, 0o444)
        return cls(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC), status.st_size)

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            ConfigError: It is closed.
        """
        if self._fd < 0:
            raise ConfigError("the shared value is closed", "inputs", "share it anew")
        return self._fd

    def duplicate(self) -> SealedMemory:
        """Return the same memory under a descriptor of its own.

        Raises:
            ConfigError: It is closed.
        """
        with self._lock:  # a number that is closed just now could be another file's a moment later
            return SealedMemory(os.dup(self.fileno()), self.nbytes)

    def view(self) -> memoryview:
        """Map it, for reading; the mapping lives as long as its views, also when this is closed."""
        return memoryview(mmap.mmap(self.fileno(), self.nbytes, mmap.MAP_PRIVATE, mmap.PROT_READ))

    def close(self) -> None:
        """Close the descriptor; closing twice is fine."""
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> SealedMemory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class SealedInputs(Packed):
    """Inputs whose large parts lie in sealed memory.

    Args:
        data: The packed bytes.
        memory: The parts; owned from here on.
    """

    def __init__(self, data: bytes, memory: Sequence[SealedMemory]) -> None:
        super().__init__(data, memory)

    @classmethod
    def received(cls, data: object, fds: Sequence[int]) -> SealedInputs:
        """Check what a client sent.

        Raises:
            ProtocolError: It is not packed bytes with sealed memory, or too much of that.
        """
        if not isinstance(data, bytes):
            raise ProtocolError("the inputs are no packed bytes", "inputs")
        memory: list[SealedMemory] = []
        try:
            memory += map(SealedMemory.received, fds)
            if sum(part.nbytes for part in memory) > MAX_SHARED_BYTES:
                raise ProtocolError(f"shared inputs of more than {MAX_SHARED_BYTES // GiB} GiB", "shared")
        except BaseException:
            for part in memory:
                part.close()
            raise
        return cls(data, memory)

    @property
    def memory(self) -> tuple[SealedMemory, ...]:
        """The parts."""
        return self._buffers

    def value(self) -> Value:
        """Return the value, its arrays being views of the memory.

        Raises:
            ProtocolError: The packed bytes do not fit the memory.
        """
        return unpack(self.data, buffers=[part.view() for part in self.memory])

    def close(self) -> None:
        """Close every descriptor; closing twice is fine."""
        for part in self.memory:
            part.close()

    def __enter__(self) -> SealedInputs:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def seal(buffers: Sequence[Any]) -> list[SealedMemory]:
    """Return sealed memory for what `pack` put aside: written now, or another's under a descriptor of its own.

    Raises:
        ConfigError: Another's is closed.
        InvalidTask: There is no room.
    """
    sealed: list[SealedMemory] = []
    try:
        for buffer in buffers:
            sealed.append(
                buffer.duplicate() if isinstance(buffer, SealedMemory) else SealedMemory.holding(memoryview(buffer))
            )
    except BaseException:
        for memory in sealed:
            memory.close()
        raise
    return sealed


def describe(memory: Sequence[SealedMemory]) -> list[list[Any]]:
    """Return what a guest is told of its shared inputs: a name and a size of each."""
    return [[f"input-{number}", part.nbytes] for number, part in enumerate(memory)]
