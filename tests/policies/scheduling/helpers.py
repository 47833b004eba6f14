"""Arms, grants and outcomes for the tests of scheduling."""

from __future__ import annotations

from typing import Any

from runvisor.policies.permissions import Permissions
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Ending, Outcome, Scheduler
from runvisor.policies.trust import Grant, Trust

FAMILY = "python:s"


def arms(count: int) -> tuple[Arm, ...]:
    """Return arms ``r0/v``, ``r1/v`` ... that run Python."""
    return tuple(Arm(f"r{index}", "v", frozenset({"python"}), frozenset({"env"})) for index in range(count))


def grant(trust: Trust = Trust.UNTRUSTED, **asked: Any) -> Grant:
    """Return a grant of what is asked."""
    return Grant("p", trust, Permissions(**asked))


def outcome(arm: int, service_s: float = 0.001, at: float = 0.0, **other: Any) -> Outcome:
    """Return an outcome of arm number ``arm``."""
    facts: dict[str, Any] = {"family": FAMILY, "ending": Ending.RAN, "wait_s": 0.0, "timeout_s": 5.0, **other}
    return Outcome(f"r{arm}/v", service_s=service_s, at=at, **facts)


def teach(scheduler: Scheduler, arm: int, services_s: list[float], *, start: float = 0.0, **other: Any) -> None:
    """Let a scheduler learn runs of one arm, a second apart."""
    for lap, service_s in enumerate(services_s):
        scheduler.update(outcome(arm, service_s, start + lap, **other))
