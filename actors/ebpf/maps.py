"""Maps of the kernel's other kinds: hashes, per-core arrays and hashes, read in batches.

Source: man 2 bpf, include/uapi/linux/bpf.h (``union bpf_attr``, "BPF_MAP_LOOKUP_BATCH").
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from runvisor.actors.ebpf import bpf

_CREATE, _LOOKUP, _UPDATE, _DELETE, _LOOKUP_BATCH = 0, 1, 2, 3, 24
_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")
_BATCH: Final = 512
_NOT_THERE: Final = 1
"""BPF_NOEXIST."""
_COUNT_AT: Final = 32


class MapKind(IntEnum):
    """``enum bpf_map_type``, as far as anything here makes them."""

    HASH = 1
    ARRAY = 2
    PER_CORE_HASH = 5
    PER_CORE_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RING_BUFFER = 27


_PER_CORE: Final = (MapKind.PER_CORE_HASH, MapKind.PER_CORE_ARRAY)
_BATCHED: Final = (MapKind.HASH, MapKind.ARRAY, MapKind.LRU_HASH, *_PER_CORE)


def possible_cores() -> int:
    """Return for how many cores the kernel keeps a value in a per-core map; the file is not seen in a jail."""
    return int(_POSSIBLE.read_text().replace("-", ",").split(",")[-1]) + 1


class Map:
    """A map that this process made, which is gone when no descriptor is left.

    A value of a per-core kind is read as one for each core, one behind the other,
    each padded to 8 bytes; `split` parts them.

    Args:
        kind: What it is.
        key_bytes: Size of a key; an array's is 4.
        value_bytes: Size of a value.
        entries: How many it holds at most.
        flags: Of ``BPF_MAP_CREATE``.
        cores: What `possible_cores` says, for the per-core kinds.
        name: For bpftool, up to 15 characters.

    Raises:
        OSError: Refused (EPERM), too large (E2BIG), or no memory (ENOMEM).
    """

    def __init__(
        self,
        kind: MapKind,
        key_bytes: int,
        value_bytes: int,
        entries: int,
        *,
        flags: int = 0,
        cores: int | None = None,
        name: bytes = b"runvisor",
    ) -> None:
        self.kind = kind
        self.key_bytes = key_bytes
        self.value_bytes = value_bytes
        self._slot_bytes = value_bytes
        if kind in _PER_CORE:
            self._slot_bytes = -(-value_bytes // 8) * 8
        self._read_bytes = self._slot_bytes * ((cores or possible_cores()) if kind in _PER_CORE else 1)
        packed = struct.pack("<7I16s", kind, key_bytes, value_bytes, entries, flags, 0, 0, name[:15])
        self.fd = bpf.call(_CREATE, bpf.attribute(packed), "map create")

    @classmethod
    def received(cls, fd: int, kind: MapKind, key_bytes: int, value_bytes: int) -> Self:
        """Return a map that another process made, of a kind that is not per core; the descriptor is now its own."""
        if kind in _PER_CORE:
            raise ValueError(f"{kind.name} needs the number of cores")
        self = cls.__new__(cls)
        self.kind, self.fd = kind, fd
        self.key_bytes, self.value_bytes = key_bytes, value_bytes
        self._slot_bytes = self._read_bytes = value_bytes
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a key, or None if there is none."""
        value = ctypes.create_string_buffer(self._read_bytes)
        return value.raw if self._element(_LOOKUP, key, value, "lookup") else None

    def update(self, key: bytes, value: bytes) -> None:
        """Set the value of a key; of a per-core kind, all cores' values."""
        if len(value) != self._read_bytes:
            raise ValueError(f"the value has {len(value)} bytes, not {self._read_bytes}")
        if not self._element(_UPDATE, key, ctypes.create_string_buffer(value, len(value)), "update"):
            raise OSError(errno.ENOENT, "bpf map update: no such key")

    def add(self, key: bytes, value: bytes) -> bool:
        """Set the value of a key that has none; return whether it had none. Not for per-core kinds."""
        try:
            return self._element(_UPDATE, key, ctypes.create_string_buffer(value, len(value)), "update", _NOT_THERE)
        except FileExistsError:
            return False

    def delete(self, key: bytes) -> bool:
        """Remove a key; return whether it was there."""
        return self._element(_DELETE, key, None, "delete")

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values, some hundreds per system call.

        While programs still write, an entry may be missed; none comes twice from a
        bucket that did not change.

        Raises:
            OSError: The kernel refuses it.
        """
        if self.kind not in _BATCHED:
            raise ValueError(f"{self.kind.name} is not read in batches")
        size = _BATCH
        position: ctypes.Array[ctypes.c_char] | None = None
        while True:
            keys = ctypes.create_string_buffer(self.key_bytes * size)
            values = ctypes.create_string_buffer(self._read_bytes * size)
            ahead = ctypes.create_string_buffer(max(4, self.key_bytes))
            packed = bpf.attribute(
                struct.pack(
                    "<QQQQIIQQ",
                    0 if position is None else ctypes.addressof(position),
                    ctypes.addressof(ahead),
                    ctypes.addressof(keys),
                    ctypes.addressof(values),
                    size,
                    self.fd,
                    0,
                    0,
                )
            )
            is_last = False
            try:
                bpf.call(_LOOKUP_BATCH, packed, "map lookup batch")
            except OSError as error:
                if error.errno == errno.ENOSPC:  # one bucket holds more
                    size *= 2
                    continue
                if error.errno != errno.ENOENT:
                    raise
                is_last = True
            count: int = struct.unpack_from("<I", packed, _COUNT_AT)[0]
            all_keys, all_values = keys.raw, values.raw
            for index in range(count):
                yield (
                    all_keys[index * self.key_bytes : (index + 1) * self.key_bytes],
                    all_values[index * self._read_bytes : (index + 1) * self._read_bytes],
                )
            if is_last:
                return
            position = ahead

    def split(self, value: bytes) -> list[bytes]:
        """Return each core's value of what a per-core map gave.

        Args:
            value: From `lookup` or `items`.
        """
        return [value[at : at + self.value_bytes] for at in range(0, len(value), self._slot_bytes)]

    def close(self) -> None:
        """Give back the descriptor; closing twice is fine."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def _element(
        self, command: int, key: bytes, value: ctypes.Array[ctypes.c_char] | None, what: str, flags: int = 0
    ) -> bool:
        if len(key) != self.key_bytes:
            raise ValueError(f"the key has {len(key)} bytes, not {self.key_bytes}")
        name = ctypes.create_string_buffer(key, len(key))
        at = 0 if value is None else ctypes.addressof(value)
        try:
            bpf.call(
                command,
                bpf.attribute(struct.pack("<I4xQQQ", self.fd, ctypes.addressof(name), at, flags)),
                f"map {what}",
            )
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True
