"""Large inputs: laid out in sealed memory once, and used by as many executions as need them."""

from __future__ import annotations

from typing import Any, Final

from runvisor.actors.channel.sealed import SealedInputs, seal
from runvisor.policies.errors import ConfigError, InvalidTask, RunvisorError
from runvisor.policies.values import LARGE_BYTES, Value, pack

_SHARED_BYTES: Final = 4096
"""What is shared on purpose is put aside from a page on."""


class Shared(SealedInputs):
    """A value in sealed memory, made by `Supervisor.share`: an input, or a part of one, of many executions.

    Executions on this node map the same pages, read-only; nothing is copied.
    Executions on other nodes get a copy each. Close it when no further one will
    begin; those that run keep the memory alive.

    Args:
        value: Any value; its arrays and bytes from 4 KiB on are laid out in the memory.

    Raises:
        UnserializableValue: The value cannot cross a sandbox boundary.

    Example:
        >>> with Shared({"blob": bytes(10_000)}) as shared:
        ...     shared.nbytes, len(shared.data) < 100
        (10000, True)
    """

    def __init__(self, value: Value) -> None:
        buffers: list[Any] = []
        data = pack(value, buffers, large_bytes=_SHARED_BYTES)
        super().__init__(data, seal(buffers))
        self._closed = False

    @property
    def nbytes(self) -> int:
        """How much memory is shared."""
        return sum(part.nbytes for part in self.memory)

    @property
    def data(self) -> bytes:
        """The packed bytes.

        Raises:
            ConfigError: It is closed.
        """
        if self._closed:
            raise ConfigError("the shared value is closed", "inputs", "share it anew")
        return super().data

    def close(self) -> None:
        """Give the memory back; closing twice is fine."""
        self._closed = True
        super().close()

    def __enter__(self) -> Shared:
        return self


def sealed_inputs(value: Value) -> SealedInputs:
    """Pack a task's inputs, with large parts in sealed memory; the caller closes it.

    Raises:
        InvalidTask: They are not values that may cross the boundary, or find no room.
        ConfigError: A shared value in them is closed.
    """
    buffers: list[Any] = []
    try:
        data = pack(value, buffers, large_bytes=LARGE_BYTES)
    except ConfigError:
        raise
    except RunvisorError as error:
        raise InvalidTask(error.what, error.where.replace("value", "inputs", 1), error.remedy) from None
    return SealedInputs(data, seal(buffers))
