"""A plan and its steps: frozen, checked when made, knowing nothing of how they run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from runvisor.policies.errors import CapabilityDenied, InvalidPlan, RunvisorError, TrustViolation
from runvisor.policies.language import LANGUAGES
from runvisor.policies.permissions import Permissions
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.task import MAX_CODE_BYTES
from runvisor.policies.trust import Trust
from runvisor.policies.values import Value, pack
from runvisor.supervisor.plan.references import ID_PATTERN, ITEM, Reference

AUTO: Final = "auto"
"""Instead of a language of `LANGUAGES`: found out from the code when the step runs."""
STEP_LANGUAGES: Final = (*LANGUAGES, AUTO)

INDEX: Final = "index"
RESERVED_IDS: Final = frozenset({ITEM, INDEX})
"""Names that every run of a ``for_each`` step finds in its inputs."""

MAX_STEPS: Final = 1000
MAX_RETRIES: Final = 10
_ID: Final = re.compile(ID_PATTERN)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan: code, what it needs, what it may do.

    The code finds the values of the steps it depends on as
    ``inputs["step_id"]``, beside the static ``inputs``. With ``inputs_from`` it
    finds exactly that one value as ``inputs`` and nothing else, which is what
    languages with a fixed shape of input need (``wat``: ``{"args": [...]}``,
    ``c-record``: ``{"records": array}``).

    Raises:
        InvalidPlan: A field is wrong; names the step and its line.

    Example:
        >>> Step("double", "inputs['load'] * 2", "python", needs=("load",)).where
        'step double'
    """

    id: str
    """Letters, digits, ``_`` and ``-``; letters, digits and ``_`` also work as ``inputs.id`` in JavaScript."""
    code: str | bytes
    """Source text, or the bytes of a wasm module."""
    language: str = AUTO
    needs: tuple[str, ...] = ()
    """Ids of steps that must be done first. Those that the code mentions need not be listed."""
    permissions: Permissions = field(default_factory=Permissions)
    trust: Trust = Trust.UNTRUSTED
    retries: int = 0
    """How often the step may run again after its own failure (see `retries.retry_delay_s`)."""
    for_each: Reference | None = None
    """A list, or a dict (its items as ``[key, value]``): the step runs once for each element."""
    max_parallel: int | None = None
    """Runs of a ``for_each`` step at once; None leaves it to the manager."""
    inputs: Mapping[str, Value] = field(default_factory=dict)
    """Values known beforehand."""
    inputs_from: Reference | None = None
    """The one value that becomes the whole of ``inputs``."""
    objective: Objective | None = None
    """What the choice of a runtime is to make small; None leaves it to the handle."""
    critical: bool = False
    """It meets a deadline: no runtime is tried on it merely to learn."""
    title: str = ""
    description: str = ""
    line: int = 0
    """Where the code starts in the plan's text, from 1; 0 is not from a text."""

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not _ID.fullmatch(self.id):
            raise self._invalid(
                f"{self.id!r} is not a step id", "use a letter, then letters, digits, _ or -, 64 at most"
            )
        if self.id in RESERVED_IDS:
            raise self._invalid(
                f"{self.id!r} cannot be a step's id", "for_each gives its runs that name; choose another"
            )
        self._check_code()
        if self.language not in STEP_LANGUAGES:
            raise self._invalid(
                f"{self.language!r} is not a language of a step", f"use one of {', '.join(STEP_LANGUAGES)}"
            )
        if isinstance(self.needs, str):
            raise self._invalid("needs is text, not a list of step ids", "write needs=('a', 'b')")
        object.__setattr__(self, "needs", tuple(dict.fromkeys(self.needs)))
        self._check_count("retries", self.retries, 0, MAX_RETRIES)
        self._check_references()
        self._check_inputs()

    def _check_code(self) -> None:
        if not isinstance(self.code, str | bytes) or not self.code.strip():
            raise self._invalid("the step has no code", "put code between its fences")
        if len(self.code) > MAX_CODE_BYTES:
            raise self._invalid(f"the code is larger than {MAX_CODE_BYTES} bytes", "pass data as inputs")

    def _check_references(self) -> None:
        for name in ("for_each", "inputs_from"):
            text = getattr(self, name)
            if text is None:
                continue
            try:
                object.__setattr__(self, name, Reference.parse(text))
            except InvalidPlan as error:
                raise self._invalid(f"{name}: {error.what}", error.remedy) from None
        if self.for_each is not None and self.for_each.step == ITEM:
            raise self._invalid("for_each cannot run over 'item'", "name the step whose list it runs over")
        if self.for_each is None and self.inputs_from is not None and self.inputs_from.step == ITEM:
            raise self._invalid("inputs=item needs for_each", "say over which list, as in for_each=steps.load.value")
        if self.max_parallel is not None:
            if self.for_each is None:
                raise self._invalid("max_parallel needs for_each", "only a step that fans out has several runs")
            self._check_count("max_parallel", self.max_parallel, 1, 10_000)

    def _check_inputs(self) -> None:
        if not isinstance(self.inputs, Mapping) or not all(isinstance(key, str) for key in self.inputs):
            raise self._invalid("inputs is not a mapping with text as keys", 'write inputs={"name": value}')
        object.__setattr__(self, "inputs", dict(self.inputs))
        if self.inputs and self.inputs_from is not None:
            raise self._invalid("the step has both static inputs and inputs from a step", "keep one of them")
        clash = sorted(self.inputs.keys() & RESERVED_IDS)
        if clash and self.for_each is not None:
            raise self._invalid(f"the static input {clash[0]!r} hides the one that for_each gives", "rename it")
        try:
            pack(self.inputs)
        except RunvisorError as error:
            raise self._invalid(f"inputs: {error.what}", error.remedy) from None

    def _check_count(self, name: str, number: object, least: int, most: int) -> None:
        if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
            raise self._invalid(f"{name} is {number!r}", f"give a whole number from {least} to {most}")

    def _invalid(self, what: str, remedy: str) -> InvalidPlan:
        return InvalidPlan(what, self.where, remedy, {"step": str(self.id)[:64], "line": self.line})

    @property
    def where(self) -> str:
        """The step's name and line, for messages."""
        return f"step {str(self.id)[:64]}" + (f", line {self.line}" if self.line else "")

    @property
    def timeout_s(self) -> float:
        """Wall clock of one run, in seconds."""
        return self.permissions.timeout_s

    @property
    def has_outside_effects(self) -> bool:
        """Whether a run may change anything that outlives its sandbox."""
        grant = self.permissions
        return bool(grant.network.allowed_hosts or grant.filesystem.write or grant.tools)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps under one title, and the most that any of them may ask for.

    The ceilings are the plan's own word. They do not grant anything: the
    manager holds the plan against what its principal may do.

    Raises:
        InvalidPlan: No steps, too many, or two of one id.
        CapabilityDenied: A step asks for more than the plan's permissions.
        TrustViolation: A step claims more trust than the plan's.

    Example:
        >>> plan = Plan("Sum", (Step("load", "[1, 2]", "python"), Step("total", "sum(inputs['load'])", "python")))
        >>> plan["total"].language
        'python'
    """

    title: str
    steps: tuple[Step, ...]
    permissions: Permissions | None = None
    """The most a step may be granted; None leaves it to the principal's ceiling."""
    trust: Trust | None = None
    """The most trust a step may claim; None leaves it to the principal's ceiling. Steps that claim none have none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise InvalidPlan(
                "the plan has no steps", "", "write each step as a fenced block of code with its language"
            )
        if len(self.steps) > MAX_STEPS:
            raise InvalidPlan(f"the plan has {len(self.steps)} steps, more than {MAX_STEPS}", "", "use for_each")
        first: dict[str, Step] = {}
        for step in self.steps:
            if (other := first.setdefault(step.id, step)) is not step:
                again = f" again after {other.where}" if other.line else " twice"
                raise InvalidPlan(f"the id {step.id!r} is used{again}", step.where, "give each step its own id")
        self.check_within(self.permissions, self.trust, "the plan")

    def __getitem__(self, step_id: str) -> Step:
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)

    def check_within(self, permissions: Permissions | None, trust: Trust | None, whose: str) -> None:
        """Refuse the plan if a step asks for more than a ceiling, before anything runs.

        Args:
            permissions: The ceiling; None bounds nothing.
            trust: The ceiling; None bounds nothing.
            whose: Whose ceiling it is, for the message.

        Raises:
            CapabilityDenied: A step asks for more permissions.
            TrustViolation: A step claims more trust.
        """
        for step in self.steps:
            details = {"step": step.id, "line": step.line}
            if trust is not None and step.trust > trust:
                raise TrustViolation(
                    f"the step claims {step.trust.label} trust; {whose} allows {trust.label}",
                    step.where,
                    f"drop the claim, or vouch for the code by running the plan as {step.trust.label}",
                    details,
                )
            if permissions is not None and (excess := step.permissions.excess_over(permissions)):
                raise CapabilityDenied(
                    f"the step asks for more than {whose} allows: {'; '.join(excess)}",
                    step.where,
                    "ask for less, or run the plan with a wider ceiling",
                    {**details, "excess": list(excess)},
                )
