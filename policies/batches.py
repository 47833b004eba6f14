"""Batches: one program on many inputs in one request, and how many inputs that should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runvisor.policies.errors import ProtocolError, RunvisorError
from runvisor.policies.result import Isolation, Result, Usage, isolation_of, usage_of, usage_to_wire
from runvisor.policies.values import pack, unpack

MAX_INPUTS: Final = 100
"""Most inputs of one batch."""
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""A pool ends a batch that has so much to say, with the results so far."""

Ending = Result | RunvisorError
"""How one execution of a batch came out: what ``run`` would return, or would raise."""


class BatchSize:
    """How many inputs the next batch takes, so that one takes about ``target_s``.

    The first batches hold one input each: nothing is known of the program, and
    slow executions are better off side by side than one after the other.

    Args:
        target_s: How long a batch should take; long against a round trip, short for a person.

    Example:
        >>> size = BatchSize(target_s=0.02)
        >>> size.inputs
        1
        >>> size.note(inputs=1, seconds=0.001)
        >>> size.inputs
        8
        >>> size.note(inputs=8, seconds=8.0)
        >>> size.inputs
        1
    """

    def __init__(self, target_s: float = 0.02) -> None:
        self._target_s = target_s
        self.inputs = 1

    def note(self, *, inputs: int, seconds: float) -> None:
        """Learn from one batch; it grows by at most eight times at once, and shrinks at once.

        Args:
            inputs: How many it held.
            seconds: How long its executions took together.
        """
        fitting = self._target_s * inputs / max(seconds, 1e-9)
        self.inputs = max(1, min(MAX_INPUTS, self.inputs * 8, int(fitting)))


class Answer:
    """Gathers the endings of a batch in their wire form: what they have in common goes once.

    Example:
        >>> answer = Answer()
        >>> answer.add(Result(Isolation("wasmtime"), value=3))
        >>> [ending.value for ending in endings_of(answer.to_wire())]
        [3]
    """

    def __init__(self) -> None:
        self._endings: list[dict[str, Any]] = []
        self._isolations: dict[Isolation, int] = {}
        self.nbytes = 0
        """About how large it is."""

    def add(self, ending: Ending) -> None:
        """Add the next ending; they are told apart by their order."""
        if isinstance(ending, RunvisorError):
            self._endings.append({"raised": ending.to_wire()})
            return
        if ending.artifacts or ending.files or ending.refused_files:
            whole = ending.to_wire()
            self.nbytes += sum(len(part[2]) for part in whole["artifacts"]) + sum(map(len, whole["files"].values()))
            self._endings.append({"whole": whole})
            return
        usage = ending.usage
        value = pack(ending.value)
        self.nbytes += len(value) + len(ending.stdout) + len(ending.stderr)
        number = self._isolations.setdefault(ending.isolation, len(self._isolations))
        wire: dict[str, Any] = {
            "value": value,
            "isolation": number,
            "usage": list(usage_to_wire(usage).values()),
        }
        # Left out where there is nothing to say: most have no output and no error.
        if ending.stdout:
            wire["stdout"] = ending.stdout
        if ending.stderr:
            wire["stderr"] = ending.stderr
        if ending.error is not None:
            wire["error"] = ending.error.to_wire()
        self._endings.append(wire)

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        isolations = [{name: getattr(item, name) for name in Isolation.__slots__} for item in self._isolations]
        return {"endings": self._endings, "isolations": isolations}


_USAGE: Final = tuple(Usage.__slots__)


def endings_of(
    data: Mapping[str, Any], *, runtime: str = "", variant: str = "", language: str = "", most: int = MAX_INPUTS
) -> list[Ending]:
    """Read a batch's answer.

    Args:
        data: From `Answer.to_wire`.
        runtime: Where it ran.
        variant: Which variant of it.
        language: The program's.
        most: How many inputs it held; an answer may end early, but not hold more.

    Raises:
        ProtocolError: It is no such answer.
    """
    try:
        isolations = [isolation_of(item) for item in data["isolations"]]
        if len(data["endings"]) > most:
            raise ValueError(f"{len(data['endings'])} endings for {most} inputs")
        return [_ending(item, isolations, (runtime, variant, language)) for item in data["endings"]]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ProtocolError(f"not a batch's answer: {type(error).__name__}: {error}") from None


def _ending(item: Mapping[str, Any], isolations: Sequence[Isolation], names: tuple[str, str, str]) -> Ending:
    if "raised" in item:
        return RunvisorError.from_wire(item["raised"])
    if "whole" in item:
        return Result.from_wire(item["whole"])
    number = item["isolation"]
    if not 0 <= number < len(isolations):
        raise IndexError("an isolation that was not told of")
    error = item.get("error")
    runtime, variant, language = names
    return Result(
        isolation=isolations[number],
        value=unpack(item["value"]),
        stdout=str(item.get("stdout", "")),
        stderr=str(item.get("stderr", "")),
        error=RunvisorError.from_wire(error) if error is not None else None,
        usage=usage_of(dict(zip(_USAGE, item["usage"], strict=True))),
        runtime=runtime,
        variant=variant,
        language=language,
    )
