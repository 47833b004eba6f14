"""Programs at events of the kernel and of libraries: they run while the descriptor is open, and no longer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator

import pytest

from runvisor.actors.ebpf import attach, bpf, btf
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.ebpf.maps import Map, MapKind
from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.ebpf.relocation import relocate
from runvisor.actors.runtime import PoolSize

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.root,
    pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail),
]

TEXT = """
u64 rv_map(u64, u64) asm("llvm.bpf.pseudo");
static void *(*rv_lookup)(u64, const void *) = (void *)1;
static inline __attribute__((always_inline)) int count(u64 more)
{
    u32 zero = 0, *wanted = rv_lookup(rv_map(1, 0), &zero);
    u64 *found = rv_lookup(rv_map(1, 1), &zero);
    if (wanted && found && *wanted == bpf_get_current_pid_tgid() >> 32)
        __sync_fetch_and_add(found, more);
    return 0;
}
int at_call(struct bpf_raw_tracepoint_args *context) { return context->args[1] == NUMBER ? count(1) : 0; }
int at_end(struct bpf_raw_tracepoint_args *context) { return ((u64 *)context->args[0])[15] == NUMBER ? count(1) : 0; }
struct entry { u64 common; u64 number; u64 arguments[6]; };
int at_entry(struct entry *context) { return count(context->arguments[0]); }
int at_function(void *context) { return count(1); }
"""
GETPPID = {"x86_64": 110, "aarch64": 173}.get(os.uname().machine, -1)
NAMES = ("at_call", "at_end", "at_entry", "at_function")


@pytest.fixture(scope="module")
def codes() -> Iterator[dict[str, bytes]]:
    compiler = Compiler(PoolSize(minimum=0, maximum=1))
    try:
        compiler.start()
        yield compiler.instructions(TEXT.replace("NUMBER", str(GETPPID)), "", 30.0, lambda: None, NAMES)
    finally:
        compiler.close()


class Counter:
    """The three programs, loaded, counting for this process."""

    def __init__(self, codes: dict[str, bytes], stack: contextlib.ExitStack) -> None:
        self._wanted = stack.enter_context(Map(MapKind.ARRAY, 4, 4, 1))
        self._found = stack.enter_context(Map(MapKind.ARRAY, 4, 8, 1))
        self._wanted.update(bytes(4), struct.pack("<I", os.getpid()))
        self._codes = codes
        self._stack = stack

    def program(self, name: str, kind: bpf.ProgramType, attach_type: int = 0, attach_btf_id: int = 0) -> int:
        code = relocate(self._codes[name], {0: self._wanted.fd, 1: self._found.fd})
        fd = bpf.load_program(code, kind, attach_type=attach_type, attach_btf_id=attach_btf_id)
        self._stack.callback(os.close, fd)
        return fd

    def attach(self, name: str, kind: bpf.ProgramType, event: int) -> int:
        """Attach a program to an event, and close that: what comes back keeps it."""
        try:
            return attach.attach_event(self.program(name, kind), event)
        finally:
            os.close(event)

    def take(self) -> int:
        found = self._found.lookup(bytes(4))
        assert found is not None
        self._found.update(bytes(4), bytes(8))
        return int.from_bytes(found, "little")


@pytest.fixture
def counter(codes: dict[str, bytes]) -> Iterator[Counter]:
    with contextlib.ExitStack() as stack:
        yield Counter(codes, stack)


@pytest.fixture
def tracefs() -> Iterator[int]:
    fd = attach.open_tracefs()
    yield fd
    os.close(fd)


def test_a_raw_tracepoint_counts_while_it_is_attached_and_no_longer(counter: Counter) -> None:
    fd = attach.attach_raw_tracepoint(counter.program("at_call", bpf.ProgramType.RAW_TRACEPOINT), "sys_enter")
    for _ in range(5):
        os.getppid()
    assert counter.take() == 5
    os.close(fd)
    os.getppid()
    assert counter.take() == 0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the 16th word of pt_regs is the number on x86-64 only")
def test_a_program_that_knows_its_tracepoints_types_follows_pointers(counter: Counter) -> None:
    (number,) = btf.tracepoint_ids(btf.VMLINUX.read_bytes(), ["sys_exit"]).values()
    fd = attach.attach_typed_tracepoint(
        counter.program("at_end", bpf.ProgramType.TRACING, attach.RAW_TYPED, attach_btf_id=number)
    )
    for _ in range(5):
        os.getppid()
    assert counter.take() == 5
    os.close(fd)
    os.getppid()
    assert counter.take() == 0


def test_a_tracepoint_gives_its_fields(counter: Counter, tracefs: int) -> None:
    assert "field:unsigned int fd;\toffset:16" in attach.tracepoint_format(tracefs, "syscalls", "sys_enter_fchdir")
    number = attach.tracepoint_id(tracefs, "syscalls", "sys_enter_fchdir")
    here = os.open(".", os.O_RDONLY)
    fd = counter.attach("at_entry", bpf.ProgramType.TRACEPOINT, attach.open_tracepoint(number))
    try:
        os.fchdir(here)
        os.fchdir(here)
        assert counter.take() == 2 * here
    finally:
        os.close(fd)
        os.close(here)


def test_a_uprobe_counts_calls_of_a_librarys_function(counter: Counter) -> None:
    libc = ctypes.CDLL("libc.so.6")
    address = ctypes.cast(libc.wcsspn, ctypes.c_void_p).value
    assert address is not None
    path, offset = _mapped_file(address)
    for at_return in (False, True):
        with open(path, "rb") as file:
            event = attach.open_uprobe(file.fileno(), offset, at_return=at_return)
        fd = counter.attach("at_function", bpf.ProgramType.KPROBE, event)
        libc.wcsspn("aab", "a")
        libc.wcsspn("aab", "a")
        assert counter.take() == 2
        os.close(fd)
    libc.wcsspn("aab", "a")
    assert counter.take() == 0


def test_an_event_that_does_not_exist_is_said(counter: Counter, tracefs: int) -> None:
    program = counter.program("at_call", bpf.ProgramType.RAW_TRACEPOINT)
    with pytest.raises(FileNotFoundError, match="raw tracepoint sys_nothing"):
        attach.attach_raw_tracepoint(program, "sys_nothing")
    with pytest.raises(FileNotFoundError):
        attach.tracepoint_id(tracefs, "sched", "nothing")
    with pytest.raises(OSError, match="uprobe at 0x0"):
        attach.open_uprobe(tracefs, 0)


def test_a_program_that_does_not_fit_the_event_is_refused(counter: Counter, tracefs: int) -> None:
    number = attach.tracepoint_id(tracefs, "sched", "sched_switch")
    with pytest.raises(OSError, match="attach to event"):
        counter.attach("at_call", bpf.ProgramType.RAW_TRACEPOINT, attach.open_tracepoint(number))


def test_tracepoints_have_names(tracefs: int) -> None:
    assert {"sched:sched_switch", "syscalls:sys_enter_openat"} <= set(attach.tracepoint_names(tracefs))


def _mapped_file(address: int) -> tuple[str, int]:
    """Return the file behind an address of this process, and where in it; see proc_pid_maps(5)."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            fields = line.split()
            first, end = (int(part, 16) for part in fields[0].split("-"))
            if first <= address < end:
                return fields[5], address - first + int(fields[2], 16)
    raise AssertionError("nothing is mapped there")
