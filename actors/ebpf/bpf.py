"""bpf(2) by raw system call: array maps, programs of any type, test runs. No libbpf, no bcc.

Source: include/uapi/linux/bpf.h (``union bpf_attr``), man 2 bpf, and
Documentation/bpf/bpf_prog_run.rst for BPF_PROG_TEST_RUN.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from enum import IntEnum
from typing import Final

_BPF: Final = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), -1)
_MAP_CREATE: Final = 0
_MAP_LOOKUP: Final = 1
_MAP_UPDATE: Final = 2
_PROG_LOAD: Final = 5
_PROG_TEST_RUN: Final = 10

_ARRAY: Final = 2
_F_MMAPABLE: Final = 1 << 10
_LOG_BYTES: Final = 1 << 20
_LOG_LEVEL: Final = 1
_LICENSE: Final = ctypes.create_string_buffer(b"GPL")
"""The kernel lets only programs under the GPL use the loops that the harness needs."""
_ATTRIBUTE_BYTES: Final = 128
_PACKET_BYTES: Final = 64
_RESULT_AT: Final = 4
_SIZE_OUT_AT: Final = 12
_CONTROL_BLOCK_AT: Final = 48
_CONTEXT_BYTES: Final = 72
_RESULT: Final = struct.Struct("<I")
_INSTRUCTION_BYTES: Final = 8

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long)
_prepared_syscall: Final = _libc["syscall"]  # another object: it takes ctypes values as they are, in half the time
_prepared_syscall.restype = ctypes.c_long


class ProgramType(IntEnum):
    """``enum bpf_prog_type``, as far as anything here loads them."""

    SOCKET_FILTER = 1
    TRAFFIC_CLASSIFIER = 3
    TRACEPOINT = 5
    XDP = 6
    PERF_EVENT = 7
    CGROUP_PACKET = 8
    CGROUP_SOCKET = 9
    RAW_TRACEPOINT = 17
    CGROUP_ADDRESS = 18
    TRACING = 26

    KPROBE = 2
    """Of uprobes too."""


class VerifierRefusal(OSError):
    """The kernel's verifier refused a program; ``log`` is what it said."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(number, os.strerror(number))
        self.log = log


def call(command: int, packed: ctypes.Array[ctypes.c_char], what: str) -> int:
    """Make one bpf(2) call.

    Args:
        command: Of ``enum bpf_cmd``.
        packed: What `attribute` made; the kernel may write into it.
        what: Its name, for the error.

    Raises:
        OSError: The kernel refuses it.
    """
    result: int = _syscall(_BPF, command, ctypes.addressof(packed), len(packed))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"bpf {what}: {os.strerror(number)}")
    return result


def attribute(packed: bytes) -> ctypes.Array[ctypes.c_char]:
    """Return the first fields of a ``union bpf_attr``, with zeros behind them."""
    return ctypes.create_string_buffer(packed, _ATTRIBUTE_BYTES)


def create_array(value_bytes: int, elements: int = 1, *, mappable: bool = False, name: bytes = b"") -> int:
    """Create an array map of zeroed elements; return its descriptor.

    Args:
        value_bytes: Size of an element.
        elements: How many.
        mappable: Whether mmap(2) may show it.
        name: For bpftool, up to 15 characters.

    Raises:
        OSError: Refused (EPERM), or no memory (ENOMEM).
    """
    flags = _F_MMAPABLE if mappable else 0
    packed = struct.pack("<7I16s", _ARRAY, 4, value_bytes, elements, flags, 0, 0, name[:15])
    return call(_MAP_CREATE, attribute(packed), "map create")


class Element:
    """The first element of an array map, to be set and read as a whole.

    Args:
        map_fd: The map; it stays the caller's.
        value_bytes: The size of its elements.
    """

    def __init__(self, map_fd: int, value_bytes: int) -> None:
        self._key = ctypes.create_string_buffer(4)
        self._value = ctypes.create_string_buffer(value_bytes)
        key, value = ctypes.addressof(self._key), ctypes.addressof(self._value)
        self._attribute = attribute(struct.pack("<I4xQQQ", map_fd, key, value, 0))

    def write(self, value: bytes) -> None:
        """Set it; what ``value`` is short of its size is zero."""
        self._value.raw = value.ljust(len(self._value), b"\0")
        call(_MAP_UPDATE, self._attribute, "map update")

    def read(self) -> bytes:
        """Return its bytes."""
        call(_MAP_LOOKUP, self._attribute, "map lookup")
        return self._value.raw


def load_socket_filter(code: bytes, *, name: bytes = b"runvisor") -> int:
    """Have the kernel verify and compile a socket filter; see `load_program`."""
    return load_program(code, ProgramType.SOCKET_FILTER, name=name)


def load_program(
    code: bytes, kind: ProgramType, *, attach_type: int = 0, attach_btf_id: int = 0, name: bytes = b"runvisor"
) -> int:
    """Have the kernel verify and compile a program; return its descriptor.

    First without a log, which is faster; a program that fails is offered once more for
    the verifier's words.

    Args:
        code: Instructions, with descriptors of maps in place (see `runvisor.actors.ebpf.relocation`).
        kind: The type of the program: what it may be attached to, and which helpers it may call.
        attach_type: Of ``enum bpf_attach_type``, for the types that are checked against it when they load.
        attach_btf_id: What a tracing program is for, in the kernel's BTF: it may then follow pointers.
        name: For bpftool, up to 15 characters.

    Raises:
        VerifierRefusal: It is not safe, or too complex.
        OSError: bpf(2) is refused, or there is no memory.
    """
    instructions = ctypes.create_string_buffer(code, len(code))

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        packed = struct.pack(
            "<IIQQIIQII16sII36xI",
            kind,
            len(code) // _INSTRUCTION_BYTES,
            ctypes.addressof(instructions),
            ctypes.addressof(_LICENSE),
            0 if log is None else _LOG_LEVEL,
            0 if log is None else len(log),
            0 if log is None else ctypes.addressof(log),
            0,
            0,
            name[:15],
            0,
            attach_type,
            attach_btf_id,
        )
        return call(_PROG_LOAD, attribute(packed), "program load")

    try:
        return attempt(None)
    except OSError as error:
        first = error
    if first.errno == errno.E2BIG:  # a million steps: the same again would take as long, and say only this
        raise VerifierRefusal(errno.E2BIG, "BPF program is too large")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return attempt(log)
    except OSError:
        text = log.value.decode(errors="replace")
    # Without a word from the verifier it was not the verifier.
    if not text.strip() or first.errno in (errno.ENOMEM, errno.ENOSYS, errno.EAGAIN, errno.EINTR):
        raise first
    raise VerifierRefusal(first.errno or errno.EINVAL, text)


class TestRun:
    """Runs a loaded socket filter on a fake packet, one system call per run.

    Args:
        program_fd: The program; it stays the caller's.
    """

    def __init__(self, program_fd: int) -> None:
        self._packet = ctypes.create_string_buffer(_PACKET_BYTES)
        self._context = ctypes.create_string_buffer(_CONTEXT_BYTES)
        self._attribute = attribute(
            struct.pack(
                "<IIIIQQIIIIQQIII",
                program_fd,
                0,
                _PACKET_BYTES,
                0,
                ctypes.addressof(self._packet),
                0,
                1,  # repeat
                0,
                _CONTEXT_BYTES,
                0,
                ctypes.addressof(self._context),
                0,
                0,
                0,
                0,
            )
        )
        address = ctypes.c_void_p(ctypes.addressof(self._attribute))
        self._arguments = ctypes.c_long(_BPF), ctypes.c_long(_PROG_TEST_RUN), address, ctypes.c_long(_ATTRIBUTE_BYTES)
        self._words = memoryview(self._context).cast("B")[_CONTROL_BLOCK_AT : _CONTROL_BLOCK_AT + 12].cast("I")
        self._result = memoryview(self._attribute).cast("B")[_RESULT_AT : _RESULT_AT + 4].cast("I")

    def __call__(self, first: int, end: int, block: int) -> int:
        """Run it with three words in ``skb->cb``; return what it returned.

        Raises:
            OSError: The kernel did not run it.
        """
        words = self._words
        words[0], words[1], words[2] = first, end, block
        if _prepared_syscall(*self._arguments) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"bpf test run: {os.strerror(number)}")
        return self._result[0]


class BareRun:
    """Runs a loaded program on a packet of zeros, with nothing else to tell it.

    Args:
        program_fd: A socket filter or an XDP program; it stays the caller's.
        packet_bytes: Size of the packet.
    """

    def __init__(self, program_fd: int, packet_bytes: int) -> None:
        self._packet = ctypes.create_string_buffer(packet_bytes)
        packet = ctypes.addressof(self._packet)
        self._attribute = attribute(struct.pack("<IIIIQQII", program_fd, 0, packet_bytes, 0, packet, 0, 1, 0))

    def __call__(self) -> int:
        """Run it once; return what it returned.

        Raises:
            OSError: The kernel did not run it.
        """
        _RESULT.pack_into(self._attribute, _SIZE_OUT_AT, 0)  # the kernel writes there, and would take it for a bound
        call(_PROG_TEST_RUN, self._attribute, "test run")
        result: int = _RESULT.unpack_from(self._attribute, _RESULT_AT)[0]
        return result
