"""Memory of a kernel map, seen from this side too. See Documentation/bpf/map_array.rst (BPF_F_MMAPABLE)."""

from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path
from typing import Final

from runvisor.policies.errors import ProtocolError

_MAP_LINK: Final = "anon_inode:bpf-map"


class SharedMap:
    """An array map that an executor made, mapped here.

    Args:
        fd: What the executor sent; taken over. An executor is believed nothing, and a file in a
            map's place could be cut short: whoever touched it then would be killed by SIGBUS.
        size: Bytes that it must have.

    Raises:
        ProtocolError: It is no map of that size.
    """

    def __init__(self, fd: int, size: int) -> None:
        self.size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        """Bytes, in whole pages."""
        try:
            if not _keeps_its_size(fd):
                raise ProtocolError("the executor shares something else than a map", "ebpf")
            self._map = mmap.mmap(fd, self.size)
        except (OSError, ValueError) as error:
            raise ProtocolError(f"the executor shares a map that is not of {size} bytes: {error}", "ebpf") from None
        finally:
            os.close(fd)
        self.view = memoryview(self._map)

    def close(self) -> None:
        """Unmap it."""
        self.view.release()
        self._map.close()


def _keeps_its_size(fd: int) -> bool:
    """Say whether a descriptor is a map of the kernel, or memory that is sealed against being cut."""
    if str(Path(f"/proc/self/fd/{fd}").readlink()) == _MAP_LINK:
        return True
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK)
    except OSError:  # neither
        return False
