"""What comes back from an execution: value, output, usage, isolation and the decision."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from runvisor.policies.errors import ProtocolError, RunvisorError
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.values import Value, is_number, pack, to_json, unpack
from runvisor.policies.witness import KernelUsage

StartKind = Literal["warm", "cold"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What an execution used, measured from outside the guest; None is not measured."""

    wall_s: float = 0.0
    """From handing the guest its code to having its result."""
    queue_s: float = 0.0
    """Waiting for an instance, before that."""
    cpu_s: float | None = None
    """By the kernel's clock, which it moves when a thread leaves its core and at each tick: of an
    execution shorter than that (1 to 10 ms) it may show less, down to 0, unless the kernel counts."""
    peak_memory_bytes: int | None = None
    instructions: int | None = None
    bytes_in: int = 0
    """Code and inputs."""
    bytes_out: int = 0
    """Value, stdout and stderr."""
    start_kind: StartKind = "warm"
    """``cold`` when a compiler or a new instance had to be waited for."""
    kernel: KernelUsage | None = None
    """What the kernel counted, with ``observability="kernel"``; see `Isolation.witness` where it is None."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What was really enforced around one execution. One shape for all runtimes."""

    engine: str
    """``namespaces+seccomp``, ``wasmtime``, ``kernel`` ..."""
    layers: tuple[str, ...] = ()
    """Each mechanism that was in force, by name."""
    limits_enforced: tuple[str, ...] = ()
    """Names of the permissions that something enforced."""
    no_spawn: bool = False
    """Child processes were refused."""
    network: Literal["none", "allow-list", "host"] = "none"
    accel: str = ""
    """Hardware help, where it matters (``jit``, ``kvm``, ``tcg``)."""
    hardening_off: tuple[str, ...] = ()
    """Hardening that this trust level gives up, by name."""
    narrowed: tuple[str, ...] = ()
    """Permissions asked for and taken away."""
    shared_with: tuple[str, ...] = ()
    """What shares the guest's process (never another principal's execution)."""
    note: str = ""
    """One sentence, when the engine is not the one that the name suggests."""
    witness: str = ""
    """``kernel`` where the kernel counted what the execution did, else why it did not; empty if nobody asked."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A rich output: a plot, a table, a page."""

    name: str
    mime: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one execution.

    A guest that fails or goes over a limit is an outcome, not an exception:
    look at ``ok`` and ``error``, or call `unwrap`.

    Example:
        >>> Result(value=2, isolation=Isolation("wasmtime")).unwrap()
        2
    """

    isolation: Isolation
    value: Value = None
    stdout: str = ""
    stderr: str = ""
    artifacts: tuple[Artifact, ...] = ()
    error: RunvisorError | None = None
    usage: Usage = Usage()
    runtime: str = ""
    variant: str = ""
    language: str = ""
    decision: Decision | None = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What the guest left under ``/out``, by relative path."""
    refused_files: tuple[str, ...] = ()
    """What it left and nobody took: links, devices, odd names, what is beyond a cap; one sentence each."""

    @property
    def ok(self) -> bool:
        """Whether the guest ran to its end."""
        return self.error is None

    def unwrap(self) -> Value:
        """Return the value, or raise the error that the execution ended with."""
        if self.error is not None:
            raise self.error
        return self.value

    def with_decision(self, decision: Decision) -> Result:
        """Return the same result with the scheduler's decision attached."""
        return replace(self, decision=decision)

    def to_wire(self) -> dict[str, Any]:
        """Return plain data for a frame; the decision stays with the caller who made it."""
        return {
            "value": pack(self.value),
            "stdout": self.stdout,
            "stderr": self.stderr,
            "artifacts": [[a.name, a.mime, a.data] for a in self.artifacts],
            "files": dict(self.files),
            "refused_files": list(self.refused_files),
            "error": self.error.to_wire() if self.error else None,
            "usage": usage_to_wire(self.usage),
            "isolation": _fields_of(self.isolation),
            "runtime": self.runtime,
            "variant": self.variant,
            "language": self.language,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any], decision: Decision | None = None) -> Result:
        """Rebuild a result.

        Args:
            data: Plain data.
            decision: The scheduler's, to be attached.

        Raises:
            ProtocolError: The data does not describe a result.
        """
        try:
            error = data["error"]
            return cls(
                value=unpack(data["value"]),
                stdout=str(data["stdout"]),
                stderr=str(data["stderr"]),
                artifacts=tuple(_artifact(*item) for item in data["artifacts"]),
                files=_files(data["files"]),
                refused_files=tuple(map(str, data["refused_files"])),
                error=RunvisorError.from_wire(error) if error is not None else None,
                usage=usage_of(data["usage"]),
                isolation=isolation_of(data["isolation"]),
                runtime=str(data["runtime"]),
                variant=str(data["variant"]),
                language=str(data["language"]),
                decision=decision,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"not a result: {type(error).__name__}: {error}") from None

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document that ``--json`` prints."""
        error = self.error
        return {
            "value": to_json(self.value),
            "stdout": self.stdout,
            "stderr": self.stderr,
            "artifacts": [
                {"name": a.name, "mime": a.mime, "base64": base64.b64encode(a.data).decode()} for a in self.artifacts
            ],
            "files": {name: base64.b64encode(content).decode() for name, content in self.files.items()},
            "refused_files": list(self.refused_files),
            "error": error and {**to_json(error.details), "type": type(error).__name__, "message": str(error)},
            "runtime": self.runtime,
            "variant": self.variant,
            "language": self.language,
            "usage": asdict(self.usage),
            "isolation": asdict(self.isolation),
            "decision": self.decision.to_dict() if self.decision else None,
        }


def _fields_of(flat: Usage | Isolation) -> dict[str, Any]:
    """Return the fields of a flat dataclass; asdict copies each value deeply and takes eighty times as long."""
    return {name: getattr(flat, name) for name in flat.__slots__}


def _artifact(name: object, mime: object, data: object) -> Artifact:
    if not isinstance(name, str) or not isinstance(mime, str) or not isinstance(data, bytes):
        raise TypeError("an artifact is a name, a type and bytes")
    return Artifact(name, mime, data)


def _files(data: Mapping[str, Any]) -> dict[str, bytes]:
    if not all(isinstance(name, str) and isinstance(content, bytes) for name, content in data.items()):
        raise TypeError("files are names and bytes")
    return dict(data)


def usage_to_wire(usage: Usage) -> dict[str, Any]:
    """Return plain data; `usage_of` undoes it."""
    fields = _fields_of(usage)
    if usage.kernel is not None:
        fields["kernel"] = usage.kernel.to_wire()
    return fields


def usage_of(data: Mapping[str, Any]) -> Usage:
    """Take numbers where numbers belong: they are added up and billed."""
    amounts = dict(data)
    start_kind, counted = amounts.pop("start_kind", "warm"), amounts.pop("kernel", None)
    for amount in amounts.values():
        if amount is not None and not is_number(amount):
            raise TypeError("usage is numbers and a start kind")
    if start_kind not in ("warm", "cold"):
        raise TypeError("usage is numbers and a start kind")
    kernel = None if counted is None else KernelUsage.from_wire(counted)
    return Usage(**amounts, start_kind=start_kind, kernel=kernel)


def isolation_of(data: Mapping[str, Any]) -> Isolation:
    """Undo msgpack's tuple-to-list."""
    plain: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in data.items()}
    return Isolation(**plain)
