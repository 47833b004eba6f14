"""From a transcript to a result: what each way to end means for the user."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from runvisor.actors.jail.child import Child, ChildExit
from runvisor.actors.jail.conversation import Transcript
from runvisor.actors.jail.spec import MEMORY_RLIMIT
from runvisor.actors.runtime import called_off
from runvisor.policies import errors
from runvisor.policies.permissions import MiB
from runvisor.policies.result import Artifact, Isolation, Result, Usage
from runvisor.policies.trust import Grant
from runvisor.policies.values import unpack

_SAYABLE: Final = (
    "GuestException",
    "GuestSyntaxError",
    "GuestInterrupted",
    "UnserializableValue",
    "MemoryLimitExceeded",
)
"""The errors that a guest may report of itself; any other comes from outside it."""
_MAX_TEXT: Final = 64 * 1024
_MAX_NOTE: Final = 500
_MAX_VALUE_BYTES: Final = 64 * MiB
"""Of a value's lists and dicts, once they are decoded."""
MAX_ARTIFACTS: Final = 32
MAX_ARTIFACT_BYTES: Final = 16 * MiB
"""Of all artifacts of one execution together."""
_GAVE_UP: Final = frozenset({signal.SIGTRAP, signal.SIGABRT, signal.SIGILL, signal.SIGSEGV})
"""How programs end themselves that are refused memory, and cannot go on."""
_REFUSED_MEMORY: Final = (b"out of memory", b"Memory allocation still failed")
"""What V8 and OpenBLAS say then; that of a guest which only says so is its own affair."""
ENFORCED: Final = ("memory_bytes", "timeout_s", "cpu_s", "output_bytes", "disk_bytes", "processes")


@dataclass(frozen=True, slots=True)
class Around:
    """What was in force around one execution, as its child found when it was sealed."""

    layers: tuple[str, ...]
    limits: tuple[str, ...]
    network: Literal["none", "allow-list", "host"]

    @classmethod
    def of(cls, child: Child, *, networked: bool) -> Around:
        """Read it off a sealed child."""
        return _around(child.layers, networked)

    @property
    def engine(self) -> str:
        """Its name in results."""
        if not self.layers:
            return "none"
        return "namespaces+seccomp" if "pid namespace" in self.layers else "seccomp"


@lru_cache(maxsize=64)  # a pool's children are all alike
def _around(layers: tuple[str, ...], networked: bool) -> Around:
    own_files = "mount namespace, read-only root" in layers
    limits = tuple(limit for limit in ENFORCED if limit != "disk_bytes" or own_files)
    return Around(layers, limits, "allow-list" if networked else "none")


NOTHING_RAN: Final = Around((), (), "none")
"""For a task that was refused before any child took it."""


def to_result(
    transcript: Transcript,
    grant: Grant,
    *,
    language: str,
    code_bytes: int,
    runtime: str,
    variant: str,
    queue_s: float,
    around: Around,
    cpu_before_s: float = 0.0,
) -> Result:
    """Read a transcript as the result of a task; every byte of it is checked.

    Args:
        transcript: What happened.
        grant: Under which bounds.
        language: The task's language.
        code_bytes: How much code it was.
        runtime: The runtime's name.
        variant: The variant's name.
        queue_s: How long the task waited for its instance.
        around: What was in force.
        cpu_before_s: How much of the CPU time in the transcript is of earlier tasks.
    """
    value, error = _value_or_error(transcript, grant, around)
    stdout = transcript.stdout.decode(errors="replace")
    stderr = transcript.stderr.decode(errors="replace")
    return Result(
        isolation=Isolation(
            engine=around.engine,
            layers=around.layers,
            limits_enforced=around.limits,
            no_spawn=True,
            network=around.network,
            narrowed=grant.narrowed,
            note=_text(transcript.reply or {}, "note")[:_MAX_NOTE],
        ),
        value=value,
        stdout=stdout,
        stderr=stderr,
        artifacts=_artifacts(transcript.reply or {}),
        error=error,
        usage=Usage(
            wall_s=transcript.wall_s,
            queue_s=queue_s,
            cpu_s=max(0.0, transcript.usage.cpu_s - cpu_before_s),
            peak_memory_bytes=transcript.usage.peak_memory_bytes,
            bytes_in=code_bytes,
            bytes_out=len(transcript.stdout) + len(transcript.stderr),
        ),
        runtime=runtime,
        variant=variant,
        language=language,
    )


def _value_or_error(transcript: Transcript, grant: Grant, around: Around) -> tuple[Any, errors.RunvisorError | None]:
    permissions = grant.permissions
    if transcript.end == "timeout":
        return None, errors.TimeLimitExceeded(
            f"the task ran longer than {permissions.timeout_s} s", "timeout_s", "raise timeout_s, or do less"
        )
    if transcript.end == "output":
        return None, errors.OutputLimitExceeded(
            f"the task printed more than {permissions.output_bytes} bytes",
            "output_bytes",
            "print less, or raise output_bytes; the first part is in stdout",
        )
    if transcript.end == "reply too large":
        return None, errors.OutputLimitExceeded(
            "the task's value is larger than a reply may be", "value", "return a summary, or write less"
        )
    if transcript.end == "malformed":
        return None, _broken_off()
    if transcript.end == "cancelled":
        return None, called_off()
    if transcript.end == "exit":
        return None, _death(transcript, grant, around)
    reply = transcript.reply or {}
    if reply.get("op") == "value" and isinstance(reply.get("value"), bytes):
        try:
            return unpack(reply["value"], max_bytes=_MAX_VALUE_BYTES), None
        except errors.ProtocolError as error:
            what = f"the task's value does not decode: {error.what}"
            return None, errors.UnserializableValue(what, error.where, error.remedy)
    return None, _reported(reply, grant)


def _artifacts(reply: dict[str, Any]) -> tuple[Artifact, ...]:
    """Take the rich outputs of a reply, as far as they are well-formed and within their caps."""
    said = reply.get("artifacts")
    kept: list[Artifact] = []
    left = MAX_ARTIFACT_BYTES
    for item in said[:MAX_ARTIFACTS] if isinstance(said, list) else ():
        match item:
            case [str(name), str(mime), bytes(data)] if len(name) + len(mime) + len(data) <= left:
                left -= len(name) + len(mime) + len(data)
                kept.append(Artifact(name, mime, data))
            case _:
                break
    return tuple(kept)


def _reported(reply: dict[str, Any], grant: Grant) -> errors.RunvisorError:
    name = reply.get("type")
    what, where, remedy = (_text(reply, key) for key in ("what", "where", "remedy"))
    if name not in _SAYABLE or not what:
        return _broken_off()
    if name == "MemoryLimitExceeded":
        return _memory_error(grant)
    traceback = _text(reply, "traceback")
    details = {"traceback": traceback} if traceback else {}
    return errors.ERRORS[name](what, where, remedy, details)


def _broken_off() -> errors.GuestCrashed:
    return errors.GuestCrashed("the task broke off its answer", "", "do not write to descriptors you did not open")


def _text(reply: dict[str, Any], key: str) -> str:
    """Take text where text belongs; anything else is as good as nothing."""
    value = reply.get(key)
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


def _memory_error(grant: Grant) -> errors.MemoryLimitExceeded:
    return errors.MemoryLimitExceeded(
        f"the task needed more than its {grant.permissions.memory_bytes / MiB:g} MiB of memory",
        "memory_bytes",
        "raise memory_bytes, or work in smaller parts",
    )


def _death(transcript: Transcript, grant: Grant, around: Around) -> errors.RunvisorError:
    end = transcript.exit
    if end is None:
        return errors.GuestCrashed("the task's process vanished", "", "")
    if end.oom_killed or (MEMORY_RLIMIT in around.layers and _was_refused_memory(transcript, end, grant)):
        return _memory_error(grant)
    cpu_s = grant.permissions.cpu_s or grant.permissions.timeout_s
    # The kernel's limit counts the preparation as well, which a result's usage leaves out; and it goes by
    # whole ticks, of which it may have counted more than were used.
    if end.signal == signal.SIGKILL and end.cpu_s >= cpu_s * 0.7:
        return errors.TimeLimitExceeded(f"the task used more than {cpu_s} s of CPU time", "cpu_s", "raise cpu_s")
    if end.signal == signal.SIGSYS:
        return errors.GuestCrashed("the task was killed for a forbidden system call", "seccomp", "")
    if end.signal:
        name = signal.Signals(end.signal).name
        last = transcript.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return errors.GuestCrashed(f"the task's process died of {name}", "", last[0][:500] if last else "")
    if _says_so(transcript):  # a library that was refused address space, and called exit
        return _memory_error(grant)
    return errors.GuestException(f"the task's process ended with status {end.status} and no value", "", "")


def _was_refused_memory(transcript: Transcript, end: ChildExit, grant: Grant) -> bool:
    """Say whether a process bounded by its own limits died of them: nobody kills it, it ends itself when refused."""
    if end.signal not in _GAVE_UP:
        return False
    peak = transcript.usage.peak_memory_bytes or 0
    return peak >= grant.permissions.memory_bytes / 2 or _says_so(transcript)


def _says_so(transcript: Transcript) -> bool:
    return any(words in transcript.stderr for words in _REFUSED_MEMORY)
