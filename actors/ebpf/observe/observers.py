"""Observing processes: each program is compiled once, each observation has a process of its own."""

from __future__ import annotations

import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from typing import Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.ebpf import btf
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.ebpf.maps import possible_cores
from runvisor.actors.ebpf.observe import harness
from runvisor.actors.ebpf.observe.events import EventPrograms
from runvisor.actors.ebpf.observe.files import FILES
from runvisor.actors.ebpf.observe.process import ObservingProcess, OpenEvents, no_events
from runvisor.actors.ebpf.observe.program import ObservationProgram
from runvisor.actors.ebpf.observe.scheduling import SCHEDULING
from runvisor.actors.ebpf.observe.syscalls import SYSCALLS
from runvisor.actors.ebpf.observe.targets import check_process, check_sight
from runvisor.actors.ebpf.observe.transfers import TRANSFERS
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.process_birth import process_birth
from runvisor.actors.runtime import called_off
from runvisor.policies.errors import Cancelled, PoolExhausted, SpawnFailed
from runvisor.policies.event_programs import parse_program
from runvisor.policies.observations import Column, ObservationRequest, ObservedTable
from runvisor.policies.permissions import MiB

PROGRAMS: Final[Mapping[str, ObservationProgram]] = {
    program.name: program for program in (SYSCALLS, SCHEDULING, FILES, TRANSFERS)
}
"""The built-in observations, by name."""
CAPABILITIES: Final = frozenset({"CAP_BPF", "CAP_PERFMON"})
"""What an executor keeps: to load programs, and to load those of the tracing kinds."""
_GUEST: Final = "runvisor.actors.ebpf.observe.executor"
_MAX_OBSERVERS: Final = 8
_MAX_OWN: Final = 4
"""Of one principal, so that none holds all for an hour."""
_MEMORY_BYTES: Final = 64 * MiB
_ENTRY_BYTES: Final = 128
"""What the kernel adds to an entry of a hash, at most."""
_COMPILE_S: Final = 30.0
_TRACKING_ONLY: Final = ObservationProgram(
    "tracking", "", (), 0, struct.Struct(""), pending_bytes=0, entries=0, columns=(), rows=lambda _: []
)
"""What an author's program has beside it: the harness's own programs."""


class Observers:
    """Observes processes by the kernel's tracepoints. Safe from many threads.

    Args:
        compiler: Compiles the programs, each when it is first asked for.
    """

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._events = EventPrograms(compiler)
        self._lock = threading.Lock()
        self._codes: dict[str, dict[str, bytes]] = {}
        self._compiling: set[str] = set()
        self._compiled_one = threading.Condition()
        self._zygote: Zygote | None = None
        self._cores = 0
        self._busy: Counter[str] = Counter()
        self._closed = False

    def observe(
        self,
        request: ObservationRequest,
        cancellation: Cancellation,
        on_started: Callable[[], None],
        principal: str = "",
        birth: str = "",
    ) -> ObservedTable:
        """Observe a process until the time is over, it has ended, or it is called off.

        Args:
            request: What, of whom, for how long.
            cancellation: Ends it early, with what was seen until then.
            on_started: Called when the first event will be seen.
            principal: For whom.
            birth: Which process the number stands for (see `process_birth`); empty for the one that has it now.

        Raises:
            ConfigError: There is no such process, or no such tracepoint.
            GuestSyntaxError: The request's program does not compile, or is not safe; `CapabilityDenied` if it
                calls the kernel.
            SpawnFailed: This machine does not let us; says what is missing.
            PoolExhausted: As many observations run as may, of all or of this principal.
            WorkerCrashed: The executor died or lied; nothing of it is left.
        """
        birth = birth or process_birth(request.pid)
        check_process(request.pid)
        check_sight()
        with self._admitted(principal):
            if request.program is None:
                program = PROGRAMS[request.what]
                try:
                    codes = self._compiled(program, cancellation)
                except Cancelled:
                    return _of_nothing(request, program.name, program.columns)
                return self._run(request, birth, program, codes, cancellation, on_started)
            return self._observe_events(request, request.program, birth, cancellation, on_started)

    @property
    def busy(self) -> int:
        """How many observations run."""
        return self._busy.total()

    def close(self) -> None:
        """End every observation; closing twice is fine."""
        with self._lock:
            self._closed = True
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            zygote.close()

    def _observe_events(
        self,
        request: ObservationRequest,
        source: str,
        birth: str,
        cancellation: Cancellation,
        on_started: Callable[[], None],
    ) -> ObservedTable:
        """Observe by an author's program."""
        with ExitStack() as stack:
            try:
                authored = self._events.compile(source, request, cancellation, stack)
                codes = {**self._compiled(_TRACKING_ONLY, cancellation), **authored.codes}
            except Cancelled:
                asked = parse_program(source)
                return _of_nothing(request, asked.title, asked.columns)
            try:
                events = authored.place.opened
                table = self._run(request, birth, authored.observation, codes, cancellation, on_started, events)
            except SpawnFailed as error:
                if error.details.get("verifier"):
                    raise authored.refusal(self._compiler, str(error.details.get("log"))) from None
                raise
            return replace(table, what=authored.place.title)

    def _run(
        self,
        request: ObservationRequest,
        birth: str,
        program: ObservationProgram,
        codes: Mapping[str, bytes],
        cancellation: Cancellation,
        on_started: Callable[[], None],
        events: OpenEvents = no_events,
    ) -> ObservedTable:
        """Observe by a program of ours or of an author's, in a process of its own."""
        zygote = self._started()
        table_bytes = program.entries * (_ENTRY_BYTES + program.key_bytes + 8 * self._cores + self._wide(program))
        child = zygote.spawn(memory_bytes=_MEMORY_BYTES + table_bytes)
        try:
            observing = ObservingProcess(child, request, birth, program, self._cores)
            return observing.run(codes, cancellation, on_started, events)
        finally:
            child.close()

    def _wide(self, program: ObservationProgram) -> int:
        return -(-program.value.size // 8) * 8 * self._cores

    @contextmanager
    def _admitted(self, principal: str) -> Iterator[None]:
        with self._lock:
            for count, limit, whose in (
                (self._busy[principal], _MAX_OWN, f"{principal} runs"),
                (self.busy, _MAX_OBSERVERS, "the pool runs"),
            ):
                if count >= limit:
                    raise PoolExhausted(
                        f"{whose} {count} observations already", "ebpf/observe", "wait for one", {"retry_after_s": 1.0}
                    )
            self._busy[principal] += 1
        try:
            yield
        finally:
            with self._lock:
                self._busy[principal] -= 1
                self._busy += Counter()  # forgets who runs none

    def _compiled(self, program: ObservationProgram, cancellation: Cancellation) -> dict[str, bytes]:
        """Return a program's instructions, compiled when they are first asked for; others do not wait for that.

        Raises:
            Cancelled: It was called off before they were there; who else waits for them has them compiled.
        """
        with self._compiled_one, cancellation.waking(self._wake):
            while program.name in self._compiling and not cancellation.cancelled:
                self._compiled_one.wait()
            if program.name in self._codes:
                return self._codes[program.name]
            if cancellation.cancelled:
                raise called_off()
            self._compiling.add(program.name)
        try:
            functions = [hook.function for hook in (*harness.TRACKING, *program.hooks)]
            main = harness.main_text(_offsets(), program.hooks)
            codes = self._compiler.instructions(
                main, program.body, _COMPILE_S, _nobody_waits, functions, cancellation=cancellation
            )
            self._codes[program.name] = codes
            return codes
        finally:
            with self._compiled_one:
                self._compiling.remove(program.name)
                self._compiled_one.notify_all()

    def _wake(self) -> None:
        with self._compiled_one:
            self._compiled_one.notify_all()

    def _started(self) -> Zygote:
        """Return the zygote, made when it is first asked for."""
        with self._lock:
            if self._closed:
                raise SpawnFailed("the runtime is closed", "ebpf/observe")
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    self._zygote.close()
                    self._zygote = None
                self._cores = possible_cores()
                spec = JailSpec(
                    "ebpf-observer",
                    _GUEST,
                    options={"cores": self._cores},
                    capabilities=CAPABILITIES,
                    syscalls="bpf",
                    cores=None,
                )
                zygote = Zygote(spec)
                zygote.start()
                self._zygote = zygote
            return self._zygote


@cache
def _offsets() -> dict[tuple[str, str], int]:
    """Find where this kernel's structs keep what the programs read.

    Raises:
        SpawnFailed: The kernel does not say.
    """
    try:
        found = btf.member_offsets(btf.VMLINUX.read_bytes(), harness.MEMBERS)
    except (OSError, ValueError) as error:
        raise SpawnFailed(
            f"the kernel's type information cannot be read: {error}",
            str(btf.VMLINUX),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF",
        ) from None
    if missing := set(harness.MEMBERS) - found.keys():
        names = ", ".join(".".join(pair) for pair in sorted(missing))
        raise SpawnFailed(f"this kernel has no {names}", "ebpf/observe", "boot Linux 6.4 or later")
    return found


def _of_nothing(request: ObservationRequest, what: str, columns: tuple[Column, ...]) -> ObservedTable:
    """Return the table of one that was called off before it began."""
    return ObservedTable(what, columns, (), request.pid, 0.0, "stopped")


def _nobody_waits() -> None:
    pass
