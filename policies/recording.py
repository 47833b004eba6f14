"""Recordings of deterministic executions: all that is needed to run one again and compare it bit for bit.

A recording is a msgpack map (https://github.com/msgpack/msgpack/blob/master/spec.md)
that holds the task, the digest of its code, the versions of what ran it, and what
was observed. Whoever reads one trusts nothing in it: it claims, and the replay finds out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from runvisor.policies.errors import (
    Cancelled,
    CapabilityDenied,
    InvalidTask,
    ProtocolError,
    RunvisorError,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import GiB, MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.values import pack, unpack

FORMAT: Final = 1
KIND: Final = "runvisor recording"
MAX_BYTES: Final = 64 * MiB
REPLAY_CEILING: Final = Permissions(
    timeout_s=60.0, memory_bytes=1 * GiB, output_bytes=16 * MiB, disk_bytes=64 * MiB, deterministic=True
)
"""What a replay gives at most when nobody says otherwise."""
_MAX_SHOWN: Final = 200
_MAX_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class Observation:
    """What can be seen of an execution, and must be the same when it is run again."""

    value: bytes
    """Packed."""
    stdout: str
    stderr: str
    error: tuple[str, str, str] | None
    """Its type, what and where."""
    instructions: int

    @classmethod
    def of(cls, result: Result) -> Observation:
        """Observe a result.

        Raises:
            InvalidTask: It ended in a way that depends on the machine's speed, or was not counted.
        """
        error = result.error
        if isinstance(error, TimeLimitExceeded | Cancelled) or result.usage.instructions is None:
            raise InvalidTask(
                "an execution that was cut off by time cannot be repeated to the bit",
                "timeout_s",
                "bound it by instructions, and give it time enough",
            )
        told = None if error is None else (type(error).__name__, error.what[:_MAX_TEXT], error.where[:_MAX_TEXT])
        return cls(pack(result.value), result.stdout, result.stderr, told, result.usage.instructions)

    def digest(self) -> str:
        """Return one hash of it all."""
        return hashlib.sha256(_packed(self.to_wire())).hexdigest()

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "value": self.value,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "error": None if self.error is None else list(self.error),
            "instructions": self.instructions,
        }

    def differences(self, other: Observation) -> tuple[str, ...]:
        """Say in one sentence each in what another observation differs from this one.

        Example:
            >>> first = Observation(pack(1), "", "", None, 10)
            >>> first.differences(Observation(pack(2), "", "", None, 10))
            ('value: recorded 1, now 2',)
        """
        found = [
            f"{name}: recorded {_shown(mine)}, now {_shown(theirs)}"
            for name, mine, theirs in (
                ("stdout", self.stdout, other.stdout),
                ("stderr", self.stderr, other.stderr),
                ("error", self.error, other.error),
                ("instructions", self.instructions, other.instructions),
            )
            if mine != theirs
        ]
        if self.value != other.value:
            found.insert(0, f"value: recorded {_shown(_value(self.value))}, now {_shown(_value(other.value))}")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Recording:
    """One deterministic execution, written down.

    Example:
        >>> task = Task("(module)", "wat", None, Permissions(deterministic=True))
        >>> made = Recording(task, {"wasmtime": "50.0.1"}, Observation(pack(7), "", "", None, 2))
        >>> Recording.from_bytes(made.to_bytes()) == made
        True
    """

    task: Task
    versions: Mapping[str, str]
    """Of runvisor and of the engine that ran it."""
    observed: Observation

    def to_bytes(self) -> bytes:
        """Return the recording as it is written to a file.

        Raises:
            InvalidTask: It would be larger than `MAX_BYTES`.
        """
        data = _packed(
            {
                "kind": KIND,
                "format": FORMAT,
                "task": self.task.to_wire(),
                "code_sha256": code_digest(self.task),
                "versions": dict(self.versions),
                "observed": self.observed.to_wire(),
                "observed_sha256": self.observed.digest(),
            }
        )
        if len(data) > MAX_BYTES:
            raise InvalidTask(f"the recording takes {len(data)} bytes, more than {MAX_BYTES}", "recording")
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Recording:
        """Read a recording.

        Raises:
            InvalidTask: It is none, is damaged, or is of another format.
        """
        if len(data) > MAX_BYTES:
            raise InvalidTask(f"a recording of {len(data)} bytes is larger than {MAX_BYTES}", "recording")
        try:
            document = msgpack.unpackb(data, raw=False, strict_map_key=True, max_ext_len=0)
            if document["kind"] != KIND:
                raise ValueError("it is of another kind")
            if document["format"] != FORMAT:
                raise ValueError(f"its format is {document['format']!r}, and {FORMAT} is known")
            task = Task.from_wire(document["task"])
            versions = {_text(name): _text(text) for name, text in document["versions"].items()}
            observed = _observation(document["observed"])
            if document["code_sha256"] != code_digest(task) or document["observed_sha256"] != observed.digest():
                raise ValueError("it is damaged: a digest does not fit")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, msgpack.UnpackException) as error:
            raise InvalidTask(f"not a recording: {_short(str(error))}", "recording") from None
        except ProtocolError as error:
            raise InvalidTask(f"not a recording: {_short(error.what)}", "recording") from None
        if not task.permissions.deterministic:
            raise InvalidTask("the recorded task is not deterministic", "recording")
        return cls(task, versions, observed)

    def task_within(self, ceiling: Permissions) -> Task:
        """Return the task to run for a replay.

        The recording's own claims count for no more than the ceiling, and its trust for nothing.

        Raises:
            CapabilityDenied: It asks for more than the ceiling; says for what.
        """
        task = self.task
        if excess := task.permissions.excess_over(ceiling):
            raise CapabilityDenied(
                f"the recording asks for more than its replay may have: {'; '.join(excess)}",
                "permissions",
                "allow it for the replay, if you mean to",
            )
        return Task(task.code, task.language, task.inputs, task.permissions, label=task.label)


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of running a recorded execution again."""

    result: Result
    differences: tuple[str, ...]
    """One sentence for each thing that is not as recorded; empty if it is the same to the bit."""
    notes: tuple[str, ...] = ()
    """What else differs, such as versions."""

    @property
    def is_identical(self) -> bool:
        """Whether everything observed is as recorded."""
        return not self.differences

    @classmethod
    def compare(cls, recording: Recording, result: Result, versions: Mapping[str, str]) -> Replay:
        """Compare a result with what was recorded.

        Args:
            recording: What was run again.
            result: What came of it.
            versions: Of what ran it now.
        """
        notes = tuple(
            f"{name}: recorded with {_short(recording.versions.get(name, 'none'))}, now {text}"
            for name, text in versions.items()
            if recording.versions.get(name) != text
        )
        try:
            differences = recording.observed.differences(Observation.of(result))
        except InvalidTask:
            differences = (f"error: recorded {_shown(recording.observed.error)}, now {_shown(str(result.error))}",)
        return cls(result, differences, notes)


def code_digest(task: Task) -> str:
    """Return the hash of a task's code."""
    code = task.code if isinstance(task.code, bytes) else task.code.encode(errors="surrogatepass")
    return hashlib.sha256(code).hexdigest()


def _observation(data: Mapping[str, Any]) -> Observation:
    error = data["error"]
    value, instructions = data["value"], data["instructions"]
    if not isinstance(value, bytes) or type(instructions) is not int:
        raise TypeError("what was observed is not bytes and a number")
    if error is not None:
        kind, what, where = map(_text, error)
        error = (kind, what, where)
    return Observation(value, _text(data["stdout"]), _text(data["stderr"]), error, instructions)


def _packed(document: Mapping[str, Any]) -> bytes:
    data = msgpack.packb(document, use_bin_type=True, unicode_errors="surrogatepass")
    assert isinstance(data, bytes)
    return data


def _text(item: object) -> str:
    if not isinstance(item, str):
        raise TypeError(f"{type(item).__name__} where text is due")
    return item


def _value(packed: bytes) -> object:
    try:
        return unpack(packed)
    except (RunvisorError, ValueError):
        return packed


def _short(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _shown(item: object) -> str:
    try:
        return _short(repr(item))
    except (ValueError, RecursionError):
        return type(item).__name__
