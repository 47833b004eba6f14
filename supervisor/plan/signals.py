"""What goes into the state machine (events) and what comes out of it (commands). Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from runvisor.policies.errors import RunvisorError


class State(StrEnum):
    """Where a step, or one of its subtasks, stands."""

    PENDING = "pending"
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in (State.DONE, State.FAILED, State.SKIPPED)


@dataclass(frozen=True, slots=True)
class Subtask:
    """One run of a step's code: the step itself, or one element of its ``for_each``."""

    step: str
    index: int | None = None

    @property
    def label(self) -> str:
        """``step`` or ``step[index]``."""
        return self.step if self.index is None else f"{self.step}[{self.index}]"


# Events: what happened.


@dataclass(frozen=True, slots=True)
class Begun:
    """The plan was handed over."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The list of a ``for_each`` step is there and has this many elements."""

    step: str
    count: int


@dataclass(frozen=True, slots=True)
class Uncountable:
    """What a ``for_each`` step runs over is no list."""

    step: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A subtask came to its end."""

    subtask: Subtask


@dataclass(frozen=True, slots=True)
class Failed:
    """A subtask ended with an error."""

    subtask: Subtask
    error: RunvisorError


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The owner wants no more of the plan."""


Event: TypeAlias = Begun | Counted | Uncountable | Succeeded | Failed | Cancelled

# Commands: what is to be done.


@dataclass(frozen=True, slots=True)
class Count:
    """Look up the list of a ``for_each`` step; answer `Counted` or `Uncountable`."""

    step: str


@dataclass(frozen=True, slots=True)
class Start:
    """Run a subtask after a delay; answer `Succeeded` or `Failed`."""

    subtask: Subtask
    attempt: int
    """From 1."""
    delay_s: float


@dataclass(frozen=True, slots=True)
class Settle:
    """A step reached its end: tell the owner, keep its value."""

    step: str
    state: State
    reason: str


Command: TypeAlias = Count | Start | Settle
