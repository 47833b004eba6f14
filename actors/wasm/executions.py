"""One execution in an engine process, and what becomes of it when the process ends.

Wasm code that shares an engine has no outside effect (no network, no files, no
tools), so running it again is harmless. That decides for an execution whose engine
ends under it:

- ended because of this execution: that is its own error;
- ended because of another one: this one runs again in a new engine;
- died by itself while only this one ran: the guest crashed it;
- died by itself while several ran: each runs again alone, in an engine of its
  own, where the guilty one is found out.

What is granted files or hosts has an engine of its own from the start, made for
its grant, and never runs again.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, TypeVar

from runvisor.actors.channel.frames import Message
from runvisor.actors.jail.child import ChildExit
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.agreement import IN_ENGINE_BYTES
from runvisor.actors.wasm.conventions import Entry, command_line
from runvisor.actors.wasm.hearing import Heard, OnDenial, ignore_denial
from runvisor.actors.wasm.lanes import EngineGone, Lane, Unanswered
from runvisor.actors.wasm.links import EngineLink
from runvisor.actors.wasm.principals import Errand, Principals
from runvisor.actors.wasm.replies import ModuleInfo, guest_error
from runvisor.policies import errors
from runvisor.policies.permissions import KiB, MiB, Permissions
from runvisor.policies.values import Value, unpack

COMPILE_TIMEOUT_S: Final = 10.0
"""How long a module may take to compile; then the engine it took hostage is replaced."""
GRACE_S: Final = 2.0
"""How long after a run's deadline the host waits for the engine to end it, before it ends the engine."""
UNBOUNDED: Final = (1 << 63) - 1
"""A budget of instructions that lasts for centuries: they are only counted."""
_MAX_TIMES: Final = 3
_REPLIES: Final = 8
"""A reply is at most so many times the output's cap: stdout, stderr, and stdout's JSON as packed numbers."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Module:
    """What to run: the bytes, and the digest that engines know them by."""

    code: bytes
    is_text: bool
    digest: bytes

    @classmethod
    def of(cls, code: str | bytes, *, is_text: bool) -> Module:
        """Name a module by its content; small ones are remembered."""
        return _remembered(code, is_text) if len(code) <= _SMALL else _named(code, is_text)


def _named(code: str | bytes, is_text: bool) -> Module:
    data = code.encode() if isinstance(code, str) else code
    return Module(data, is_text, hashlib.sha256(b"wat" + data if is_text else data).digest())


_SMALL: Final = 32 * KiB
_remembered: Final = lru_cache(maxsize=256)(_named)


@dataclass(slots=True)
class Outcome:
    """What came of an execution, checked: it came from a process that hostile code ran in."""

    value: Value = None
    error: errors.RunvisorError | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    value_bytes: int = 0
    wall_s: float = 0.0
    cpu_s: float | None = None
    memory_bytes: int | None = None
    instructions: int | None = None
    was_cold: bool = False
    """It waited for a compiler."""
    was_alone: bool = False
    """Its engine process ran nothing else, before or meanwhile."""
    told: tuple[int, int] = (0, 0)
    """How much of stdout and stderr was passed on while it ran."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What it left in /out."""
    refused_files: tuple[str, ...] = ()


Work = Callable[[EngineLink, Lane], Outcome]
"""What to do in an engine. May be called again, in another one, when it lets `EngineGone` or `ProtocolError` pass."""


def on_engine(engines: Principals, principal: str, memory_bytes: int, work: Work) -> Outcome:
    """Do some work in the principal's engine, and see to it that the guilty bear the blame when that ends.

    Args:
        engines: The runtime's engines.
        principal: On whose behalf.
        memory_bytes: What the work's guest may take.
        work: What to do.

    Raises:
        ConfigError: The work refused its task.
        GuestError: The work's code does not compile.
        LimitExceeded: It took too long to compile, or is too large.
        CapacityError: No engine came free.
        WorkerError: No engine can be made, or each was lost to other executions.
    """
    for _ in range(_MAX_TIMES):
        with engines.engine(principal) as link:
            try:
                with link.lane(memory_bytes) as lane:
                    return work(link, lane)
            except EngineGone as gone:
                if link.condemned or not gone.was_asked:
                    continue
            except errors.ProtocolError:
                pass
            end = link.death()
            if link.suspects <= 1:
                return Outcome(error=_blame(end))
            break
    else:
        raise errors.WorkerCrashed(
            f"the engine was lost {_MAX_TIMES} times to other executions of the same principal",
            "wasm",
            "run it again",
            {"started": True},
        )
    with engines.engine_alone() as link:
        try:
            with link.lane(memory_bytes) as lane:
                return replace(work(link, lane), was_alone=True)
        except (EngineGone, errors.ProtocolError):
            return Outcome(error=_blame(link.death()), was_alone=True)


def on_own_engine(engines: Principals, errand: Errand, work: Work) -> Outcome:
    """Do some work in an engine that is made for its grant, and take what it leaves.

    Args:
        engines: The runtime's engines.
        errand: What the engine is to be shown.
        work: What to do.

    Raises:
        PolicyError: What is granted cannot be given here.
        InvalidPermissions: A granted path does not exist, or leads through a link.
        GuestError: The work's code does not compile.
        LimitExceeded: It took too long to compile, or the granted files are too large.
        CapacityError: No engine came free.
        WorkerError: No engine can be made.
    """
    permissions = errand.permissions
    with engines.own_engine(errand) as (link, custody):
        try:
            with link.lane(permissions.memory_bytes + permissions.disk_bytes) as lane:
                outcome = work(link, lane)
        except (EngineGone, errors.ProtocolError):
            outcome = Outcome(error=_blame(link.death()))
        ended_well = outcome.error is None and not errand.cancellation.cancelled
        left = custody.collect(ended_well=ended_well)
    return replace(outcome, was_alone=True, files=left.files, refused_files=left.refused)


def compiled(link: EngineLink, lane: Lane, module: Module, profile: str) -> ModuleInfo:
    """Have a module compiled, a small one by the engine itself, and return what it is.

    Raises:
        GuestSyntaxError: It is no module that can run here.
        LimitExceeded: It took too long to compile, or is too large.
        CapacityError: No compiler came free.
        EngineGone: The engine ended.
        ProtocolError: The engine answered nonsense; the caller of the work ends it.
    """
    request: Message = {
        "op": "compile",
        "key": module.digest,
        "code": module.code,
        "is_text": module.is_text,
        "profile": profile,
    }
    try:
        if len(module.code) > IN_ENGINE_BYTES:
            reply = link.load(lane, module.digest, module.code, profile, is_text=module.is_text)
        else:
            reply = lane.ask(request, COMPILE_TIMEOUT_S)
    except Unanswered:
        link.condemn()
        raise errors.TimeLimitExceeded(
            f"the module took longer than {COMPILE_TIMEOUT_S:g} s to compile", "compile", "make it smaller"
        ) from None
    if "error" in reply:
        raise guest_error(reply["error"])
    info = ModuleInfo.from_wire(reply.get("module"))
    link.note((module.digest, profile), info)
    return info


@dataclass(slots=True, eq=False)
class ModuleRun:
    """The work of running a module by its conventions.

    Args:
        module: What to run.
        inputs: The task's inputs.
        permissions: The grant's.
        on_started: Called once, before the guest's code begins.
    """

    module: Module
    inputs: Value
    permissions: Permissions
    on_started: Callable[[], None]
    watch: Watch = field(default_factory=Watch)
    """Told of output as it comes, if it wants it; asked whether to go on."""
    files: Mapping[str, Any] | None = None
    """What `shown_files` says; None is nothing at all."""
    on_denial: OnDenial = ignore_denial
    input_bytes: int = 0
    """Bytes of parameters or stdin, known when it has run."""
    _has_started: bool = False
    _told: list[int] = field(default_factory=lambda: [0, 0])

    def __call__(self, link: EngineLink, lane: Lane) -> Outcome:
        """Compile it if the engine does not have it, and run it."""
        is_counted = self.permissions.deterministic or self.permissions.instructions is not None
        profile = "metered" if is_counted else "plain"
        key = (self.module.digest, profile)
        was_cold = False
        for _ in range(2):  # a second time when the engine has forgotten the module
            info = link.modules.get(key)
            if info is None:
                was_cold = True
                info = compiled(link, lane, self.module, profile)
            if isinstance(info.entry, errors.InvalidTask):
                raise errors.InvalidTask(*info.entry.args)  # a new one: raising adds to an error's traceback
            outcome = self._run(link, lane, info.entry)
            if outcome is not None:
                return replace(outcome, was_cold=True) if was_cold else outcome
            link.modules.pop(key, None)
        raise errors.ProtocolError("the engine forgets a module that it has just compiled")

    def _run(self, link: EngineLink, lane: Lane, entry: Entry) -> Outcome | None:
        permissions = self.permissions
        request: Message = {
            "op": "run",
            "key": self.module.digest,
            "entry": entry.name,
            "arguments": entry.arguments(self.inputs),
            "timeout_s": permissions.timeout_s,
            "memory_bytes": permissions.memory_bytes,
        }
        self.input_bytes = len(request["arguments"])
        if entry.uses_wasi:
            request["output_bytes"] = permissions.output_bytes
            request["stdin"] = b""
            if entry.is_command:
                request["argv"], request["stdin"] = command_line(self.inputs)
            self.input_bytes += len(request["stdin"])
            request["environment"] = dict(permissions.env)
            request["is_command"] = entry.is_command
            if self.files is not None:
                request["files"] = self.files
            if permissions.network.allowed_hosts:
                request["web"] = True
            if self.watch.wants_output:
                request["follow"] = True
        if permissions.instructions is not None or permissions.deterministic:
            request["fuel"] = permissions.instructions or UNBOUNDED
            request["is_deterministic"] = permissions.deterministic
        if not self._has_started:
            self._has_started = True
            self.on_started()
        heard = Heard(permissions.output_bytes, self.watch.output, self.on_denial, self._told)
        began = time.perf_counter()
        try:
            reply = lane.ask(
                request,
                permissions.timeout_s + GRACE_S,
                _REPLIES * permissions.output_bytes + MiB,
                hear=heard.hear if entry.uses_wasi else None,
                cancellation=self.watch.cancellation,
            )
        except Unanswered:
            return not_stopped(link, permissions, heard, time.perf_counter() - began)
        wall_s = time.perf_counter() - began
        if reply.get("unknown"):
            return None
        if reply.get("exhausted"):
            raise errors.PoolExhausted(
                "the engine has no place for one more instance just now",
                "",
                "retry later, or raise the pool's maximum",
                {"retry_after_s": 0.1},
            )
        return self._read(entry, reply, wall_s, heard)

    def _read(self, entry: Entry, reply: Message, wall_s: float, heard: Heard) -> Outcome:
        value: Value = None
        packed = b""
        error = guest_error(reply["error"]) if "error" in reply else None
        if error is None and entry.is_command:
            packed = of_type(reply, "value", bytes)
            value = unpack(packed)
        elif error is None and not reply.get("has_left"):
            packed = of_type(reply, "results", bytes)
            value = entry.value(packed)
        return Outcome(
            value=value,
            error=error,
            stdout=heard.all_of(1, of_type(reply, "stdout", bytes)) if entry.uses_wasi else b"",
            stderr=heard.all_of(2, of_type(reply, "stderr", bytes)) if entry.uses_wasi else b"",
            told=heard.told,
            value_bytes=len(packed),
            wall_s=wall_s,
            cpu_s=of_type(reply, "cpu_s", float),
            memory_bytes=None if reply.get("memory_bytes") is None else of_type(reply, "memory_bytes", int),
            instructions=None if reply.get("instructions") is None else of_type(reply, "instructions", int),
        )


def not_stopped(link: EngineLink, permissions: Permissions, heard: Heard, wall_s: float) -> Outcome:
    """End an engine that did not end a run when its time was up, and return what came of the run."""
    link.condemn()
    return Outcome(
        error=errors.TimeLimitExceeded(
            f"the program ran longer than {permissions.timeout_s:g} s and did not stop when told to",
            "timeout_s",
            "raise timeout_s, or do less",
        ),
        stdout=heard.all_of(1, b""),
        stderr=heard.all_of(2, b""),
        told=heard.told,
        wall_s=wall_s,
    )


def of_type(reply: Message, name: str, kind: type[T]) -> T:
    """Return a field of a reply.

    Raises:
        ProtocolError: It is missing or of another type.
    """
    value = reply.get(name)
    if not isinstance(value, kind):
        raise errors.ProtocolError(f"the engine's {name} is of type {type(value).__name__}")
    return value


def _blame(end: ChildExit | None) -> errors.RunvisorError:
    """Say what the guest did, from how its engine process ended.

    Raises:
        WorkerCrashed: Nobody saw it end: not it but its zygote is gone.
    """
    if end is None:
        raise errors.WorkerCrashed("the engine process vanished", "wasm", "", {"started": True})
    if end.oom_killed:
        return errors.MemoryLimitExceeded(
            "the engine process ran out of memory under the guest", "memory_bytes", "make the module smaller"
        )
    if end.signal:
        return errors.GuestCrashed(f"the guest's engine process died of {signal.Signals(end.signal).name}")
    return errors.GuestCrashed(f"the guest's engine process ended with status {end.status}")
