"""Attaching loaded programs to events: raw tracepoints, tracepoints and uprobes.

What is attached is a descriptor: while it, or a copy, is open, the program
runs at each such event on every core and for every process; when the last is closed,
by whatever means, it does not. So nothing outlives a process that is killed. Programs
look themselves whether the process is one that concerns them.

A tracepoint or uprobe is opened as an event first, which takes tracefs or the file; whoever
gets a copy of that descriptor can attach a program without either.

Source: man 2 bpf (BPF_RAW_TRACEPOINT_OPEN, BPF_LINK_CREATE), man 2 perf_event_open (dynamic
PMUs), Documentation/trace/events.rst, Documentation/trace/uprobetracer.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from runvisor.actors.ebpf import bpf
from runvisor.actors.jail import kernel

RAW_TYPED: Final = 23
"""``BPF_TRACE_RAW_TP``: the attach type of tracing programs at raw tracepoints."""
_RAW_TRACEPOINT_OPEN: Final = 17
_LINK_CREATE: Final = 28
_PERF_EVENT: Final = 41
"""Of ``enum bpf_attach_type``."""
_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}.get(kernel.MACHINE, -1)
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # the same on every architecture
_FSCONFIG_CMD_CREATE: Final = 6
_CLOEXEC: Final = 1
_PERF_CLOEXEC: Final = 8
_PERF_TYPE_TRACEPOINT: Final = 2
_ATTRIBUTE_BYTES: Final = 112
_TRACING: Final = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_UPROBE_TYPE: Final = Path("/sys/bus/event_source/devices/uprobe/type")


def attach_raw_tracepoint(program_fd: int, name: str) -> int:
    """Run a program of type ``RAW_TRACEPOINT`` at each event of a name; return the descriptor that keeps it so.

    Needs CAP_BPF and CAP_PERFMON, and no tracefs. The context holds the tracepoint's
    own arguments (``struct bpf_raw_tracepoint_args``).

    Args:
        program_fd: The program; it stays the caller's.
        name: For example ``sys_enter``, without a category.

    Raises:
        FileNotFoundError: The kernel has no such tracepoint.
        OSError: The kernel refuses it.
    """
    text = ctypes.create_string_buffer(name.encode())
    packed = bpf.attribute(struct.pack("<QI", ctypes.addressof(text), program_fd))
    return bpf.call(_RAW_TRACEPOINT_OPEN, packed, f"raw tracepoint {name}")


def attach_typed_tracepoint(program_fd: int) -> int:
    """Run a tracing program, loaded for a raw tracepoint, at each event there; return what keeps it so.

    It costs what one of type ``RAW_TRACEPOINT`` does, but reads what the tracepoint's
    arguments point to without a call. Needs the same capabilities, and neither tracefs
    nor ftrace.

    Args:
        program_fd: Of type ``TRACING``, attach type `RAW_TYPED`; it stays the caller's.

    Raises:
        OSError: The kernel refuses it.
    """
    return bpf.call(_RAW_TRACEPOINT_OPEN, bpf.attribute(struct.pack("<QI", 0, program_fd)), "typed tracepoint")


def open_tracefs() -> int:
    """Return a descriptor of the folder of tracefs, wherever it is mounted, or of a mount that nobody else sees.

    Raises:
        OSError: It is mounted nowhere, and mounting it needs CAP_SYS_ADMIN or CONFIG_TRACING.
    """
    for folder in _TRACING:
        if os.access(f"{folder}/events", os.R_OK | os.X_OK):
            return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    context = kernel.syscall(_FSOPEN, b"tracefs", _CLOEXEC, what="fsopen tracefs")
    try:
        kernel.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0, what="fsconfig tracefs")
        flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        return kernel.syscall(_FSMOUNT, context, _CLOEXEC, flags, what="fsmount tracefs")
    finally:
        os.close(context)


def tracepoint_id(tracefs_fd: int, category: str, name: str) -> int:
    """Return the number by which perf_event_open(2) knows a tracepoint.

    Args:
        tracefs_fd: See `open_tracefs`.
        category: For example ``sched``.
        name: For example ``sched_switch``.

    Raises:
        FileNotFoundError: The kernel has no such tracepoint.
    """
    return int(_read(tracefs_fd, f"events/{category}/{name}/id"))


def tracepoint_format(tracefs_fd: int, category: str, name: str) -> str:
    """Return the text that says where each field of an event lies.

    Raises:
        FileNotFoundError: The kernel has no such tracepoint.
    """
    return _read(tracefs_fd, f"events/{category}/{name}/format")


def tracepoint_names(tracefs_fd: int) -> list[str]:
    """Return the names of all tracepoints, as ``category:name``."""
    return _read(tracefs_fd, "available_events").split()


def open_tracepoint(number: int) -> int:
    """Return the descriptor of a tracepoint's events, for a program of type ``TRACEPOINT``.

    Needs CAP_PERFMON. The context of its program holds the event's fields where its format says.

    Args:
        number: What `tracepoint_id` says.

    Raises:
        OSError: The kernel refuses it.
    """
    # One event on one core is enough: a tracepoint calls its programs wherever it is hit.
    return _open(_attribute(_PERF_TYPE_TRACEPOINT, number), -1, "tracepoint")


def open_uprobe(file_fd: int, offset: int, *, at_return: bool = False, pid: int = -1) -> int:
    """Return the descriptor of hits of an instruction of a file, for a program of type ``KPROBE``.

    Needs CAP_PERFMON. The context of its program holds the registers (``struct pt_regs``). Each hit
    costs the process that it hits microseconds, in a virtual machine more than ten.

    Args:
        file_fd: A program or library, opened; by whatever path a process mapped the same file, it is hit.
        offset: Of the instruction, in the file; not its address. In the midst of an instruction it breaks
            every process that comes there.
        at_return: Of a function: when it returns, not when it is entered.
        pid: Only in this process; in all by default.

    Raises:
        OSError: The kernel refuses it, or there is no such instruction or process.
    """
    name = ctypes.create_string_buffer(f"/proc/self/fd/{file_fd}".encode())
    kind = int(_UPROBE_TYPE.read_text())
    event = _attribute(kind, int(at_return), ctypes.addressof(name), offset)
    return _open(event, pid, f"uprobe at {offset:#x}")


def attach_event(program_fd: int, event_fd: int) -> int:
    """Run a program at each event; return the descriptor that keeps it so, also when the event's is closed.

    Needs CAP_BPF.

    Args:
        program_fd: The program, of the event's type; it stays the caller's.
        event_fd: From `open_tracepoint` or `open_uprobe`; it stays the caller's.

    Raises:
        OSError: The kernel refuses it: a program that reads beyond a tracepoint's fields, for one.
    """
    packed = bpf.attribute(struct.pack("<IIII", program_fd, event_fd, _PERF_EVENT, 0))
    return bpf.call(_LINK_CREATE, packed, "attach to event")


def _attribute(kind: int, config: int, config1: int = 0, config2: int = 0) -> bytes:
    """Return a ``struct perf_event_attr``, with one sample per event."""
    packed = struct.pack("<IIQQQQQIIQQ", kind, _ATTRIBUTE_BYTES, config, 1, 0, 0, 0, 0, 0, config1, config2)
    return packed.ljust(_ATTRIBUTE_BYTES, b"\0")


def _open(event: bytes, pid: int, what: str) -> int:
    core = -1 if pid >= 0 else 0
    return kernel.syscall(_PERF_EVENT_OPEN, event, pid, core, -1, _PERF_CLOEXEC, what=f"perf_event_open {what}")


def _read(folder_fd: int, path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder_fd)
    with contextlib.closing(os.fdopen(fd)) as file:
        return file.read()
