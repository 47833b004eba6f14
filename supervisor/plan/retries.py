"""When a failed subtask may run again. Pure."""

from __future__ import annotations

from typing import Final

from runvisor.policies.errors import CapacityError, GuestError, RunvisorError
from runvisor.supervisor.plan.model import Step

FREE_RETRIES: Final = 2
"""Retries of failures that were not the code's, whatever the step says."""

FIRST_DELAY_S: Final = 0.05
MAX_DELAY_S: Final = 5.0


def retry_delay_s(step: Step, error: RunvisorError, attempt: int) -> float | None:
    """Say after how many seconds a failed subtask runs again, or None if it does not.

    - No room (`CapacityError`): nothing had started, so it is always safe.
    - Our own side failed in a retryable way: again if the run had not started, or
      if its grant lets nothing outlive the sandbox (no network, writes or tools).
    - The guest failed (`GuestError`): only if the step asks with ``retries``, and
      under the same condition. The same code on the same inputs mostly fails again.
    - Anything else (limits, policy, configuration) would end the same way: never.

    Args:
        step: The step.
        error: How the attempt ended.
        attempt: Which attempt that was, from 1.

    Example:
        >>> from runvisor.policies.errors import GuestException, QueueFull
        >>> step = Step("a", "1", "python")
        >>> retry_delay_s(step, QueueFull("full"), 1), retry_delay_s(step, GuestException("boom"), 1)
        (0.05, None)
    """
    if error.retryable:
        budget = max(step.retries, FREE_RETRIES)
        started = not isinstance(error, CapacityError) and error.details.get("started") is not False
    elif isinstance(error, GuestError):
        budget, started = step.retries, True
    else:
        return None
    if attempt > budget or (started and step.has_outside_effects):
        return None
    hint = error.details.get("retry_after_s")
    if isinstance(hint, int | float) and not isinstance(hint, bool) and hint > 0:
        return min(float(hint), MAX_DELAY_S)
    doubled: float = FIRST_DELAY_S * 2.0 ** (attempt - 1)
    return min(doubled, MAX_DELAY_S)
