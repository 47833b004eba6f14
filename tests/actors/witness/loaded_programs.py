"""Which programs the kernel holds, asked of itself; see BPF_PROG_GET_NEXT_ID in man 2 bpf."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

from runvisor.actors.ebpf import bpf
from runvisor.actors.witness.programs import PROGRAMS

_NEXT_ID, _FD_BY_ID, _INFO = 11, 13, 15
_NAME_AT, _NAME_BYTES = 64, 16
_GONE_S = 20.0


def counting_programs() -> int:
    """Return how many of our counting programs are loaded, of anybody's."""
    number = found = 0
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
        found += info.raw[_NAME_AT:].rstrip(b"\0").decode(errors="replace") in PROGRAMS


def wait_until_loaded(count: int) -> None:
    """Wait until so many are loaded: the kernel unloads one a moment after its last descriptor is closed."""
    deadline = time.monotonic() + _GONE_S
    while (found := counting_programs()) != count:
        assert time.monotonic() < deadline, f"{found} counting programs are loaded, not {count}"
        time.sleep(0.005)
