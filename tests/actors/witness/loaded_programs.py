"""Which programs the kernel holds, asked of itself; see BPF_PROG_GET_NEXT_ID in man 2 bpf."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

from runvisor.actors.ebpf import bpf
from runvisor.actors.jail.uids import UIDS
from runvisor.actors.witness.programs import PROGRAMS

_NEXT_ID, _FD_BY_ID, _INFO = 11, 13, 15
_UID_AT, _NAME_AT, _NAME_BYTES = 48, 64, 16
_GONE_S = 20.0
_UIDS = 256
"""One process gives its children so many user ids, next to each other."""


def loaded_programs() -> set[int]:
    """Return the ids of the counting programs that witnesses of this process have loaded; others may test beside it."""
    own = UIDS.take()
    UIDS.give_back(own)
    number, found = 0, set[int]()
    while True:
        packed = bpf.attribute(struct.pack("<I", number))
        try:
            bpf.call(_NEXT_ID, packed, "next program")
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        number = struct.unpack_from("<I", packed, 4)[0]
        try:
            fd = bpf.call(_FD_BY_ID, bpf.attribute(struct.pack("<I", number)), "program by id")
        except OSError:  # it went just now
            continue
        info = ctypes.create_string_buffer(_NAME_AT + _NAME_BYTES)
        bpf.call(_INFO, bpf.attribute(struct.pack("<IIQ", fd, len(info), ctypes.addressof(info))), "program info")
        os.close(fd)
        (uid,) = struct.unpack_from("<I", info, _UID_AT)
        is_ours = abs(uid - own) < _UIDS and info.raw[_NAME_AT:].rstrip(b"\0").decode(errors="replace") in PROGRAMS
        found |= {number} if is_ours else set()


def counting_programs() -> int:
    """Return how many there are."""
    return len(loaded_programs())


def wait_until_loaded(count: int) -> None:
    """Wait until so many are loaded: the kernel unloads one a moment after its last descriptor is closed."""
    deadline = time.monotonic() + _GONE_S
    while (found := counting_programs()) != count:
        assert time.monotonic() < deadline, f"{found} counting programs are loaded, not {count}"
        time.sleep(0.005)
