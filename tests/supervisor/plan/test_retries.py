"""What may run again, and what must not."""

from __future__ import annotations

import pytest

from runvisor.policies.errors import (
    CapabilityDenied,
    GuestCrashed,
    GuestException,
    InvalidTask,
    PoolExhausted,
    ProtocolError,
    QueueFull,
    RunvisorError,
    TimeLimitExceeded,
    WorkerCrashed,
)
from runvisor.policies.permissions import Network, Permissions
from runvisor.supervisor.plan.model import Step
from runvisor.supervisor.plan.retries import MAX_DELAY_S, retry_delay_s

ONLINE = Permissions(network=Network(("example.com",)))


def attempts(step: Step, error: RunvisorError) -> int:
    """Count the attempts until a step that always fails so is given up."""
    attempt = 1
    while retry_delay_s(step, error, attempt) is not None:
        attempt += 1
    return attempt


@pytest.mark.parametrize(
    ("error", "retries", "permissions", "expected"),
    [
        (QueueFull("full"), 0, Permissions(), 3),
        (PoolExhausted("lent"), 5, Permissions(), 6),
        (PoolExhausted("lent"), 0, ONLINE, 3),
        (WorkerCrashed("died"), 0, Permissions(), 3),
        (WorkerCrashed("died"), 5, ONLINE, 1),
        (WorkerCrashed("died", "", "", {"started": True}), 5, ONLINE, 1),
        (WorkerCrashed("died", "", "", {"started": False}), 0, ONLINE, 3),
        (GuestException("boom"), 0, Permissions(), 1),
        (GuestException("boom"), 2, Permissions(), 3),
        (GuestCrashed("signal 11"), 1, Permissions(), 2),
        (GuestException("boom"), 2, ONLINE, 1),
        (TimeLimitExceeded("slow"), 5, Permissions(), 1),
        (CapabilityDenied("no"), 5, Permissions(), 1),
        (InvalidTask("bad"), 5, Permissions(), 1),
        (ProtocolError("odd"), 5, Permissions(), 1),
    ],
)
def test_attempts(error: RunvisorError, retries: int, permissions: Permissions, expected: int) -> None:
    step = Step("a", "1", "python", retries=retries, permissions=permissions)
    assert attempts(step, error) == expected


def test_the_delay_doubles_up_to_a_bound_and_follows_a_sane_hint() -> None:
    step = Step("a", "1", "python", retries=10)
    assert [retry_delay_s(step, QueueFull("full"), attempt) for attempt in (1, 2, 3, 10)] == [0.05, 0.1, 0.2, 5.0]
    for hint, expected in ((0.7, 0.7), (10**6, MAX_DELAY_S), (-3, 0.05), ("soon", 0.05), (True, 0.05)):
        assert retry_delay_s(step, QueueFull("full", "", "", {"retry_after_s": hint}), 1) == expected
