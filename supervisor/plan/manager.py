"""The manager: runs a plan by handing its subtasks to an executor, many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from runvisor.policies.errors import InvalidPlan
from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import Trust
from runvisor.supervisor.plan.decompose import Graph, decompose
from runvisor.supervisor.plan.executor import Executor
from runvisor.supervisor.plan.model import Plan
from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.run import Observer, Run, Settings


class Manager:
    r"""Runs plans on an executor; one manager may run several plans at once, each in its caller's thread.

    The ceilings come from the principal, never from the plan: a plan is text
    that an agent wrote, and what it claims for its own code counts only up to
    what its owner vouches for.

    Args:
        executor: Runs the subtasks.
        max_parallel: Subtasks of one plan at once.
        trust: The most trust a step may claim.
        permissions: The most a step may ask for; None leaves it to the trust level's ceiling.
        observer: Called with each `PlanEvent`, in the thread of `run`. If it raises, the plan goes on.
        overrun_s: How long past a step's own timeout its executor may stay silent before it is given up.
        clock: Seconds that only grow; tests pass their own.

    Example:
        >>> from runvisor.policies.result import Isolation, Result
        >>> from runvisor.supervisor.plan.markdown import parse_plan
        >>> class Echo:
        ...     def run(self, code, *, inputs, **rest):
        ...         return Result(Isolation("none"), value=[code.strip(), inputs])
        >>> plan = parse_plan("```py id=a\nx\n```\n```py id=b\ninputs['a']\n```")
        >>> Manager(Echo()).run(plan).values["b"]
        ["inputs['a']", {'a': ['x', {}]}]
    """

    def __init__(
        self,
        executor: Executor,
        *,
        max_parallel: int = 8,
        trust: Trust = Trust.UNTRUSTED,
        permissions: Permissions | None = None,
        observer: Observer | None = None,
        overrun_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if max_parallel < 1:
            raise InvalidPlan("max_parallel must be at least 1", "max_parallel")
        self.executor = executor
        self.max_parallel = max_parallel
        self.trust = trust
        self.permissions = permissions
        self.observer = observer
        self.overrun_s = overrun_s
        self.clock = clock

    def check(self, plan: Plan) -> Graph:
        """Break a plan into subtasks and hold it against the ceilings; runs nothing.

        Raises:
            InvalidPlan: A reference leads nowhere, or the steps form a cycle.
            CapabilityDenied: A step asks for more than the ceiling.
            TrustViolation: A step claims more trust than the ceiling.
        """
        plan.check_within(self.permissions, self.trust, "its owner")
        return decompose(plan)

    def run(self, plan: Plan, cancel: threading.Event | None = None) -> PlanResult:
        """Run a plan to its end and return how every step ended.

        A failing step stops only what depends on it. When ``cancel`` is set, nothing
        further starts and `run` returns at once; code that runs in a sandbox at that
        moment is given up, and ends at the latest at its own time limit.

        Raises:
            InvalidPlan: As `check`; nothing has run.
            CapabilityDenied: As `check`; nothing has run.
            TrustViolation: As `check`; nothing has run.
        """
        graph = self.check(plan)
        settings = Settings(
            self.executor, self.max_parallel, self.permissions, self.observer, self.overrun_s, self.clock
        )
        return Run(graph, settings, cancel or threading.Event()).to_end()
