"""The eBPF runtime: record and packet programs, compiled by bcc and run by the kernel's JIT."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from runvisor.actors.artifacts import shared_artifacts
from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf import btf
from runvisor.actors.ebpf.compiler import BODY_PATH, Compiler
from runvisor.actors.ebpf.diagnostics import TOO_MANY_PATHS, verifier_error
from runvisor.actors.ebpf.executors import Executors
from runvisor.actors.ebpf.harness import main_text
from runvisor.actors.ebpf.line_table import LineTable
from runvisor.actors.ebpf.observe.observers import Observers
from runvisor.actors.ebpf.packets.execution import VARIANT as PACKETS
from runvisor.actors.ebpf.packets.execution import PacketExecution, compile_packets
from runvisor.actors.ebpf.packets.harness import main_text as packet_text
from runvisor.actors.ebpf.probe import has_may_goto, jit_is_on, mitigations_are_off, probe_ebpf
from runvisor.actors.ebpf.programs import PacketPrograms, Programs
from runvisor.actors.ebpf.tiers import CAPABILITIES, Tier, loops_of
from runvisor.actors.ebpf.work import RecordWork, Work
from runvisor.actors.jail.spec import CPU_CGROUP, LAYERS
from runvisor.actors.runtime import Load, PoolSize, Probe, Watch, called_off
from runvisor.actors.settings import RuntimeSettings
from runvisor.actors.user_cache import cache_folder
from runvisor.policies import packets
from runvisor.policies.bytecode import ITERATOR_CALLS, MAX_INSTRUCTIONS, Loop
from runvisor.policies.errors import (
    EngineRefused,
    GuestError,
    InvalidTask,
    LimitExceeded,
    MemoryLimitExceeded,
    PolicyError,
    RunvisorError,
    SpawnFailed,
    TimeLimitExceeded,
    WorkerCrashed,
)
from runvisor.policies.observations import ObservationRequest, ObservedTable
from runvisor.policies.packets import PacketInputs
from runvisor.policies.record_answers import Answer, check_task
from runvisor.policies.record_inputs import RecordInputs
from runvisor.policies.records import LANGUAGE
from runvisor.policies.result import Isolation, Result, StartKind, Usage
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Value

VARIANT: Final = "record"
_SPECTRE: Final = ("spectre_v1", "spectre_v4")
_HARDENING_OFF: Final = (*_SPECTRE, "kernel_addresses", "uninitialised_stack")
"""What the verifier no longer insists on for a process with CAP_PERFMON: that speculation
cannot leave bounds, and that no address or stale stack word reaches the program's state."""
_ENFORCED: Final = ("memory_bytes", "timeout_s", "output_bytes", "disk_bytes", "processes")
_COUNT_BYTES: Final = 4
_ATTEMPTS: Final = 2
_SHORTEST_S: Final = 0.01


class EbpfRuntime:
    """Runs the languages ``c-record`` and ``c-packet`` in the kernel.

    Untrusted programs, where the operator lets them in at all, run in the tier
    ``bpf``, whose programs the kernel hardens against Spectre; verified and trusted
    ones in ``bpf+perfmon``, and their results say what is off. XDP programs, which take
    trusted code, run in ``bpf+perfmon+net_admin``.

    Args:
        size: How many executors to keep.
        loop: How programs loop; None is what this kernel does best.

    Example:
        >>> EbpfRuntime().name
        'ebpf'
    """

    def __init__(self, size: PoolSize | None = None, *, loop: Loop | None = None) -> None:
        self.name = "ebpf"
        self._size = size or PoolSize()
        self._asked_loop = loop
        self._compiler = Compiler(self._size, shared_artifacts(cache_folder()))
        self._observers = Observers(self._compiler)
        self._tiers: dict[Tier, Executors] = {}
        self._tiers_lock = threading.Lock()
        self._programs = Programs()
        self._packet_programs = PacketPrograms()
        self._kernel_functions: dict[int, int] = {}
        self._loops: Mapping[Tier, Loop] = dict.fromkeys(CAPABILITIES, loop or "may_goto")
        self._closed = False

    def probe(self) -> Probe:
        """See `Runtime.probe`: tries bpf(2) itself, the loops, bcc and the jail."""
        return probe_ebpf()

    def start(self) -> None:
        """Start the compiler and the executors for verified programs.

        Raises:
            SpawnFailed: It cannot run here; says what is missing.
        """
        probe = self.probe()
        if not probe.available:
            raise SpawnFailed(probe.detail, self.name, probe.remedy)
        self._compiler.start()
        if btf.VMLINUX.exists():
            found = btf.function_ids(btf.VMLINUX.read_bytes(), ITERATOR_CALLS.values())
            self._kernel_functions = {number: found[name] for number, name in ITERATOR_CALLS.items() if name in found}
        if self._asked_loop is None:
            self._loops = loops_of(has_may_goto(), len(self._kernel_functions) == len(ITERATOR_CALLS))
        self._tier("bpf+perfmon")

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        """See `Runtime.execute`. A program that was compiled before starts warm.

        The clock of ``timeout_s`` runs while the program is compiled and while it
        runs, not while it waits for an executor. There is no output; a cancellation
        ends the waiting at once, and is honoured before and after the kernel runs
        the program, not within.

        A program that the kernel cannot take, though wasm may, ends as `EngineRefused`:
        nothing has started then, and the same is said at once the next time.

        Raises:
            InvalidTask: The variant does not run the language, or the inputs do not fit the program.
            PoolExhausted: No executor came free in time.
            WorkerCrashed: An executor or a compiler died of itself.
        """
        kinds = {VARIANT: (LANGUAGE, self._records), PACKETS: (packets.LANGUAGE, self._packets)}
        language, run_kind = kinds.get(variant, ("another runtime", None))
        if run_kind is None or task.language != language:
            raise InvalidTask(f"ebpf/{variant} does not run {task.language}", "language", f"use {language}")
        run = _Run(grant, watch)
        value: Value = None
        error: RunvisorError | None = None
        try:
            if watch.cancellation.cancelled:
                raise called_off()
            value = run_kind(task, run)
            if watch.cancellation.cancelled:
                raise called_off()
        except (GuestError, LimitExceeded, PolicyError) as caught:
            value, error = None, caught
        wall_s = run.elapsed_s()
        return Result(
            isolation=_isolation(run.tier, grant.narrowed, grant.principal if run.was_loaded else None),
            value=value,
            error=error,
            usage=Usage(
                wall_s=wall_s,
                queue_s=run.queue_s,
                cpu_s=run.cpu_s,
                bytes_in=len(task.code) + run.bytes_in,
                bytes_out=run.bytes_out,
                start_kind=run.start_kind,
            ),
            runtime=self.name,
            variant=variant,
            language=task.language,
        )

    def observe(self, request: ObservationRequest, watch: Watch, principal: str = "", birth: str = "") -> ObservedTable:
        """See `ObservingRuntime.observe`."""
        return self._observers.observe(request, watch.cancellation, watch.started, principal, birth)

    def load(self) -> Load:
        """See `Runtime.load`."""
        loads = [executors.load() for executors in list(self._tiers.values())]
        return Load(sum(x.idle for x in loads), sum(x.busy for x in loads), sum(x.waiting for x in loads))

    def close(self) -> None:
        """See `Runtime.close`."""
        with self._tiers_lock:
            self._closed = True
            tiers, self._tiers = list(self._tiers.values()), {}
        for executors in tiers:
            executors.close()
        self._observers.close()
        self._compiler.close()

    def _records(self, task: Task, run: _Run) -> Value:
        """Run a record program; return its value."""
        inputs, grant, limits = RecordInputs.of(task.inputs, task.source), run.grant, run.grant.permissions
        run.bytes_in = inputs.records.nbytes
        known = self._programs.find(task.source, inputs.records.dtype, collects=inputs.collects)
        program = known.program
        state = program.initial_state(inputs.state) if inputs.state else b""
        check_task(program, inputs, limits.memory_bytes, limits.output_bytes)
        collected = Answer(program, inputs, limits.output_bytes)
        if grant.trust in known.refusals:
            raise EngineRefused(*known.refusals[grant.trust].args)
        try:
            artifact = known.artifacts.get(grant.trust)
            if artifact is None:
                loop, most = self._loops[run.tier], MAX_INSTRUCTIONS[grant.trust]
                artifact = self._compiler.compile(program, loop, most, limits.timeout_s, run.on_compiling)
                known.artifacts[grant.trust] = artifact
            work = RecordWork(artifact, program, inputs.records, state, collected)
            again = functools.partial(main_text, program, self._loops[run.tier], BODY_PATH)
            answer = self._answer(work, run, self._lines(again, program.body, artifact.instructions))
        except EngineRefused as refusal:
            known.refusals[grant.trust] = refusal
            raise
        value, collected_bytes = collected.value(answer.get("selected"), answer.get("state"))
        run.bytes_out = _COUNT_BYTES + program.state_bytes + collected_bytes
        return value

    def _packets(self, task: Task, run: _Run) -> Value:
        """Run a packet program; return its value."""
        inputs, grant = PacketInputs.of(task.inputs), run.grant
        run.bytes_in = len(inputs.capture.data)
        known = self._packet_programs.find(task.source)
        execution = PacketExecution(known.program, inputs, grant)
        if known.program.kind == "xdp":
            run.tier = "bpf+perfmon+net_admin"
        artifact, loop = known.artifacts.get(grant.trust), self._loops[run.tier]
        if artifact is None:
            artifact = compile_packets(self._compiler, known.program, loop, grant, run.on_compiling)
            known.artifacts[grant.trust] = artifact
        again = functools.partial(packet_text, known.program, loop, BODY_PATH)
        lines = self._lines(again, known.program.body, artifact.instructions)
        value, run.bytes_out = execution.value(self._answer(execution.work(artifact), run, lines))
        return value

    def _lines(self, main: Callable[[], str], body: str, code: bytes) -> Callable[[float], LineTable]:
        """Return what finds out which instruction came from which line: made only when it is asked."""
        return lambda left_s: self._compiler.lines(main(), body, code, left_s)

    def _answer(self, work: Work, run: _Run, lines: Callable[[float], LineTable] = LineTable.unknown) -> Message:
        """Have an executor run the program to its end; one that died while it waited is replaced.

        Args:
            work: What to run.
            run: Its clock and counts.
            lines: Finds out, within so many seconds, which instruction came from which line.
        """
        for attempt in range(_ATTEMPTS):
            waited = time.monotonic()
            with self._tier(run.tier).lend(run.grant.principal, work.artifact, run.cancellation) as executor:
                now = time.monotonic()
                run.queue_s += now - waited
                run.begin()
                left_s = run.left_s()
                if left_s <= 0:
                    raise _late(run.grant)
                deadline = now + left_s
                try:
                    answer = executor.run(work, deadline, run.on_started)
                except WorkerCrashed as error:
                    if error.details.get("started") or attempt == _ATTEMPTS - 1:
                        raise
                    continue
            run.note(answer)
            if answer.get("op") != "done":
                left_s = max(_SHORTEST_S, run.left_s())
                raise _failure(answer, run.grant, lines(left_s) if answer.get("op") == "refused" else None)
            return answer
        raise AssertionError("not reached")

    def _tier(self, name: Tier) -> Executors:
        """Return a tier's executors; the hardened tier starts with its first program."""
        executors = self._tiers.get(name)
        if executors is not None:
            return executors
        with self._tiers_lock:
            if self._closed:
                raise SpawnFailed("the runtime is closed", self.name)
            if name not in self._tiers:
                made = Executors(name, CAPABILITIES[name], self._kernel_functions, self._size)
                try:
                    made.start()
                except BaseException:
                    made.close()
                    raise
                self._tiers[name] = made
            return self._tiers[name]


@functools.lru_cache(maxsize=256)
def _isolation(tier: Tier, narrowed: tuple[str, ...], loaded_for: str | None) -> Isolation:
    """Say what is in force around a program of a tier.

    Args:
        tier: Where it ran.
        narrowed: What the grant took away.
        loaded_for: The principal for whom it had been loaded before this execution, if it had.
    """
    kept = " and ".join(sorted(CAPABILITIES[tier]))
    off: tuple[str, ...] = _SPECTRE if mitigations_are_off() else ()
    if "CAP_PERFMON" in CAPABILITIES[tier]:
        off = _HARDENING_OFF
    layers = (layer.replace("no capabilities", f"only {kept}") for layer in LAYERS if layer != CPU_CGROUP)
    around = tuple(f"executor: {layer}" for layer in layers)
    earlier = f"earlier executions of {loaded_for}: the code stays loaded, state and input are reset"
    return Isolation(
        engine="kernel",
        layers=("instruction scan", "kernel verifier", *around),
        limits_enforced=_ENFORCED,
        no_spawn=True,
        accel="jit" if jit_is_on() else "",
        hardening_off=off,
        narrowed=narrowed,
        shared_with=() if loaded_for is None else (earlier,),
    )


class _Run:
    """The clock and the counts of one execution."""

    def __init__(self, grant: Grant, watch: Watch) -> None:
        self.grant = grant
        self.cancellation = watch.cancellation
        self.queue_s = 0.0
        self.cpu_s: float | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.start_kind: StartKind = "warm"
        self.tier: Tier = "bpf" if grant.trust is Trust.UNTRUSTED else "bpf+perfmon"
        self.was_loaded = False
        self._on_started = watch.started
        self._has_started = False
        self._began: float | None = None
        self._queued_before = 0.0

    def begin(self) -> None:
        """Start the clock, once: compiling counts, though until the program runs another engine may."""
        if self._began is None:
            self._began = time.monotonic()
            self._queued_before = self.queue_s

    def on_compiling(self) -> None:
        """Note that a compiler is at work."""
        self.begin()
        self.start_kind = "cold"

    def on_started(self) -> None:
        """Say that the program is loaded and about to run."""
        self.begin()
        if not self._has_started:
            self._has_started = True
            self._on_started()

    def elapsed_s(self) -> float:
        """Return how long it has run, waiting for executors left out."""
        if self._began is None:
            return 0.0
        return time.monotonic() - self._began - (self.queue_s - self._queued_before)

    def left_s(self) -> float:
        """Return what is left of its time."""
        return self.grant.permissions.timeout_s - self.elapsed_s()

    def note(self, answer: Message) -> None:
        """Take the counts out of an executor's answer."""
        self.was_loaded = answer.get("start_kind") == "warm"
        if not self.was_loaded:
            self.start_kind = "cold"
        if isinstance(answer.get("cpu_s"), float):
            self.cpu_s = answer["cpu_s"]


def _late(grant: Grant) -> TimeLimitExceeded:
    return TimeLimitExceeded(
        f"the task ran longer than {grant.permissions.timeout_s} s", "timeout_s", "raise timeout_s, or do less"
    )


def _failure(answer: Message, grant: Grant, lines: LineTable | None = None) -> RunvisorError:
    """Return the error that an executor's answer stands for."""
    kind = answer.get("op")
    if kind == "refused":
        return verifier_error(str(answer["log"]), lines)
    if kind in ("late", "silent"):
        return _late(grant)
    if kind == "out of memory" and answer["loading"]:  # maps are refused, not killed for: it was the verifier
        return verifier_error(TOO_MANY_PATHS)
    if kind in ("no memory", "out of memory"):
        return MemoryLimitExceeded("the kernel has no memory for the program's maps", "memory_bytes", "keep less state")
    return WorkerCrashed(f"the executor failed: {answer.get('what', kind)}", "ebpf", "", {"started": True})


def create(size: PoolSize, settings: RuntimeSettings) -> EbpfRuntime:
    """Make the runtime as the operator wants it."""
    del settings
    return EbpfRuntime(size)
