"""The simulator: requests arrive, handles choose, pools queue and serve, outcomes travel back.

Event-driven and pure: the workload holds all luck, so a run of the same policy
on the same workload is the same run. As in production

* a handle chooses with a snapshot of the policy that is up to 100 ms old, and
  with loads as each pool last told *it*, with its replies, and what it has sent
  since; on the pools' own node it reads them at any time;
* outcomes reach the policy in batches, when a handle reports;
* a pool serves first come, first served, with as many workers as it has;
* the first run of a snippet on an arm compiles it, whoever sends it;
* a failure is fast or hangs until the timeout; service is cut at the timeout; a
  request that would wait longer than its timeout gives up, and teaches nothing;
* work slows down when many requests are in flight: the machine is shared.
"""

from __future__ import annotations

import heapq
import pickle
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from benchmarks.scheduler.workload import Flags, Floats, Integers, Workload
from runvisor.actors.runtime import Load
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, Ending, Outcome
from runvisor.policies.scheduling.objective import Objective
from runvisor.supervisor.load_view import LoadView, Reading

SNAPSHOT_EVERY_S: Final = 0.1
_REUSED: Final = 0.25
"""Part of that time for which a published snapshot serves all handles."""
_CALM: Final = 5
"""Requests in flight that do not yet slow each other down."""
_FAST_FAILURE: Final = 0.3
"""Of the service time, after which a failure that does not hang shows."""
_LEAST_S: Final = 1e-6


class Selecting(Protocol):
    """What the simulator needs of a policy that learns nothing."""

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Choose an arm."""
        ...


@runtime_checkable
class Learning(Protocol):
    """What else a policy has that learns."""

    def update(self, outcome: Outcome) -> None:
        """Learn from an outcome."""
        ...


class Pool:
    """Workers that serve first come, first served.

    Example:
        >>> pool = Pool(workers=1)
        >>> pool.admit(0.0, 2.0), pool.wait_s(0.5), pool.admit(0.5, 1.0)
        (0.0, 1.5, 2.0)
        >>> load = pool.load(0.5)
        >>> load.idle, load.busy, load.waiting
        (0, 1, 1)
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.in_flight = 0
        """Admitted and not yet `released`."""
        self._expected_s = 0.0
        self._free_at = [0.0] * workers
        self._starts: deque[float] = deque()
        """When those start that wait; they do so in their order."""

    def wait_s(self, now: float) -> float:
        """Return how long a request would wait that came now."""
        return max(0.0, self._free_at[0] - now)

    def admit(self, now: float, hold_s: float, expected_s: float = 0.0) -> float:
        """Take a request; returns when it starts.

        Args:
            now: When it comes.
            hold_s: How long it will hold a worker.
            expected_s: How long whoever sent it expects that to be.
        """
        start = max(now, self._free_at[0])
        heapq.heapreplace(self._free_at, start + hold_s)
        if start > now:
            self._starts.append(start)
        self.in_flight += 1
        self._expected_s += expected_s
        return start

    def release(self, expected_s: float = 0.0) -> None:
        """Note that one has ended."""
        self.in_flight -= 1
        self._expected_s = max(0.0, self._expected_s - expected_s) if self.in_flight else 0.0

    def load(self, now: float) -> Load:
        """Return what the pool would tell of itself."""
        while self._starts and self._starts[0] <= now:
            self._starts.popleft()
        waiting = len(self._starts)
        busy = min(self.workers, self.in_flight - waiting)
        return Load(self.workers - busy, busy, waiting, self._expected_s)


@dataclass(slots=True)
class _Handle:
    """One client: what it knows."""

    policy: Selecting
    views: dict[str, LoadView]
    """Of each pool, by its name: the class that production has."""
    told_at: dict[str, float] = field(default_factory=dict)
    """When each pool last answered."""
    outcomes: list[Outcome] = field(default_factory=list)
    sent: set[tuple[int, int]] = field(default_factory=set)
    """Snippets with the arms that it has sent them to: elsewhere they would start cold, as far as it knows."""


@dataclass(frozen=True)
class Run:
    """What came of a workload under one policy; an item per request, in order of arrival."""

    workload: Workload
    arm: Integers
    """The chosen one, by its place in the workload."""
    best: Integers
    """The one that the oracle would have chosen in the same state of the pools."""
    cost_s: Floats
    """True cost of the chosen arm when it was chosen; see `_Rows.costs`."""
    least_s: Floats
    """That of the best arm."""
    latency_s: Floats
    """From arrival to answer; the timeout for what failed."""
    wait_s: Floats
    failed: Flags
    """Failed, cut off, or given up."""
    answered: Integers
    """How often each request was answered: once."""
    busy_s: Floats
    """Per arm, the time that its workers spent serving."""


Moments = tuple[list[list[float]], list[list[float]]]
"""Means and deviations, a row per request, a column per arm."""


class _Rows:
    """A workload as lists of Python numbers, a row per request: many times faster to read one by one."""

    def __init__(self, workload: Workload) -> None:
        self.failure_chance: list[list[float]] = workload.failure_chance.tolist()
        self.service_s: list[list[float]] = workload.service_s.tolist()
        self.compile_s: list[list[float]] = workload.compile_s.tolist()
        self.fails: list[list[bool]] = workload.fails.tolist()
        self.hangs: list[list[bool]] = workload.hangs.tolist()
        self.timeout_s: list[float] = workload.timeout_s.tolist()
        self.snippets: list[int] = workload.snippets.tolist()
        self.critical: list[bool] = workload.critical.tolist()
        self.features = [tuple(row) for row in workload.features.tolist()]
        self.eligible: list[list[int]] = [np.flatnonzero(row).tolist() for row in workload.eligible]
        self.rho = workload.regime.rho
        self.true: Moments = (workload.mean_s.tolist(), workload.std_s.tolist())
        self.known = self.true
        if workload.known_mean_s is not None and workload.known_std_s is not None:
            self.known = (workload.known_mean_s.tolist(), workload.known_std_s.tolist())

    def costs(
        self, moments: Moments, place: int, waits_s: Sequence[float], colds_s: Sequence[float], slowed: float
    ) -> list[float]:
        """Return what a request would cost on each of its eligible arms, as only an oracle knows.

        ``min(wait + cold + mean + rho * std, timeout) + P(failure) * timeout``. Nothing
        lasts longer than its timeout. The wait is the true one: the oracle sees how
        long what is in the queue will take, which no policy can.

        Args:
            moments: Means and deviations by request and arm: `true`, or those that the oracle knows.
            place: The request.
            waits_s: Of each eligible arm, how long the request would wait.
            colds_s: Of each, how long it would compile.
            slowed: The factor of contention.
        """
        mean, std, failure = moments[0][place], moments[1][place], self.failure_chance[place]
        timeout_s, rho = self.timeout_s[place], self.rho
        return [
            min(wait + cold + slowed * (mean[arm] + rho * std[arm]), timeout_s) + failure[arm] * timeout_s
            for arm, wait, cold in zip(self.eligible[place], waits_s, colds_s, strict=True)
        ]


@dataclass(slots=True)
class _Sent:
    """A request that a pool has."""

    handle: int
    place: int
    arm: int
    expected_s: float
    """What its handle expects of the execution."""
    sending: AbstractContextManager[None] | None = None
    """Its handle's count of what is unanswered."""
    outcome: Outcome | None = None
    """None if it gives up."""


_REPLY, _REPORT = 0, 1
_Event = tuple[float, int, int, Any]
"""(when, number, kind, what)."""


class Simulation:
    """One run.

    Args:
        workload: The requests.
        policy: The learner's; handles get copies. None is the oracle.
        handles: Clients, among which requests are dealt in turn.
        snapshot_every_s: How often each reports what it learned and gets a snapshot.
        same_node: Whether handles read the loads of pools from memory instead of waiting for replies.
        objective: What requests ask for; None is what they are judged by.
    """

    def __init__(
        self,
        workload: Workload,
        policy: Selecting | None,
        *,
        handles: int = 1,
        snapshot_every_s: float = SNAPSHOT_EVERY_S,
        same_node: bool = False,
        objective: Objective | None = None,
    ) -> None:
        self._workload = workload
        self._rows = _Rows(workload)
        self._policy = policy
        pools = [Pool(workers) for _, workers in workload.pools]
        self._pools = [pools[number] for number in workload.pool_of]
        self._pool_names = [workload.pools[number][0] for number in workload.pool_of]
        self._names = [arm.name for arm in workload.arms]
        self._compiled: set[tuple[int, int]] = set()
        self._events: list[_Event] = []
        self._number = 0
        self._in_flight = 0
        self._objective = objective or Objective("mean+std", rho=workload.regime.rho)
        self._every_s = snapshot_every_s
        self._published: Selecting | None = None
        self._published_at = 0.0
        self._now = 0.0
        self._handles: list[_Handle] = []
        if policy is not None:
            policies = [policy] if handles == 1 else [_copy(policy) for _ in range(handles)]
            self._handles = [_Handle(each, self._views(same_node=same_node)) for each in policies]
        if isinstance(policy, Learning):
            for number in range(handles):
                self._plan(snapshot_every_s * (number + 1) / handles, _REPORT, number)
        # Decisions differ from run to run only by these, and they by the workload's seed.
        random = np.random.default_rng([workload.seed, 20_29])
        self._draws: list[list[float]] = random.standard_normal(workload.eligible.shape).tolist()

    def run(self) -> Run:
        """Serve every request."""
        workload = self._workload
        requests = len(workload.arrivals_s)
        arm, best = np.empty(requests, np.int64), np.empty(requests, np.int64)
        cost, least, latency, wait = (np.empty(requests) for _ in range(4))
        failed, self._answered = np.zeros(requests, np.bool_), np.zeros(requests, np.int64)
        self._busy = np.zeros(len(workload.arms))
        rows = self._rows
        for place, now in enumerate(workload.arrivals_s.tolist()):
            self._until(now)
            eligible, snippet = rows.eligible[place], rows.snippets[place]
            waits = [self._pools[each].wait_s(now) for each in eligible]
            compile_s = rows.compile_s[place]
            colds = [0.0 if (snippet, each) in self._compiled else compile_s[each] for each in eligible]
            slowed = 1.0 + workload.regime.contention * max(0, self._in_flight - _CALM)
            costs = rows.costs(rows.true, place, waits, colds, slowed)
            known = costs if rows.known is rows.true else rows.costs(rows.known, place, waits, colds, slowed)
            ideal = known.index(min(known))
            handle = place % max(1, len(self._handles))
            taken, expected_s = (ideal, 0.0) if self._policy is None else self._choose(handle, place, now)
            chosen = eligible[taken]
            arm[place], best[place], cost[place], least[place] = chosen, eligible[ideal], costs[taken], costs[ideal]
            sent = _Sent(handle, place, chosen, expected_s)
            if self._handles:
                sent.sending = self._handles[handle].views[self._pool_names[chosen]].sending(expected_s)
                sent.sending.__enter__()
            latency[place], failed[place] = self._serve(sent, now, waits[taken], colds[taken], slowed)
            wait[place] = min(waits[taken], rows.timeout_s[place])
        self._until(float("inf"))
        return Run(workload, arm, best, cost, least, latency, wait, failed, self._answered, self._busy)

    def _views(self, *, same_node: bool) -> dict[str, LoadView]:
        """Return what a handle sees of each pool."""
        return {
            name: LoadView(pool.load(0.0), 0.0, self._reading(pool) if same_node else None)
            for name, pool in zip(self._pool_names, self._pools, strict=True)
        }

    def _reading(self, pool: Pool) -> Reading:
        def read() -> tuple[Load, float]:
            return pool.load(self._now), self._now

        return read

    def _choose(self, number: int, place: int, now: float) -> tuple[int, float]:
        """Let a handle choose; returns the place among the eligible arms, and what it expects of the execution."""
        rows, handle = self._rows, self._handles[number]
        family, timeout_s = self._workload.families[place], rows.timeout_s[place]
        eligible, snippet = rows.eligible[place], rows.snippets[place]
        cold = frozenset(self._names[each] for each in eligible if (snippet, each) not in handle.sent)
        loads = {self._pool_names[each]: self._load(handle, each, now) for each in eligible}
        context = Context(family, timeout_s, loads, rows.critical[place], rows.features[place], self._objective, cold)
        arms = [self._workload.arms[each] for each in eligible]
        choice = handle.policy.select(context, arms, now, self._draws[place])
        taken = eligible.index(self._names.index(choice.arm))
        handle.sent.add((snippet, eligible[taken]))
        return taken, next((each.mean_s or 0.0 for each in choice.candidates if each.arm == choice.arm), 0.0)

    def _load(self, handle: _Handle, arm: int, now: float) -> Load:
        """Return the load of an arm's pool as a handle sees it, in simulated time."""
        name = self._pool_names[arm]
        load = handle.views[name].now(now)
        return replace(load, at=handle.told_at.get(name, 0.0)) if load.at else load

    def _serve(self, sent: _Sent, now: float, wait_s: float, cold_s: float, slowed: float) -> tuple[float, bool]:
        """Let a pool serve a request; returns its latency and whether it failed."""
        rows, place, arm = self._rows, sent.place, sent.arm
        timeout_s = rows.timeout_s[place]
        if wait_s >= timeout_s:
            self._plan(now + timeout_s, _REPLY, sent)
            return timeout_s, True
        service_s = cold_s + slowed * rows.service_s[place][arm]
        ending = Ending.RAN
        if rows.fails[place][arm]:
            hangs = rows.hangs[place][arm]
            service_s = timeout_s if hangs else min(service_s * _FAST_FAILURE, timeout_s)
            ending = Ending.TIMED_OUT if hangs else Ending.FAILED
        elif service_s >= timeout_s:
            service_s, ending = timeout_s, Ending.TIMED_OUT
        service_s = max(_LEAST_S, service_s)
        start = self._pools[arm].admit(now, service_s, sent.expected_s)
        self._in_flight += 1
        self._compiled.add((rows.snippets[place], arm))
        self._busy[arm] += service_s
        name, family, features = self._names[arm], self._workload.families[place], rows.features[place]
        ended = start + service_s
        cold_s = min(cold_s, service_s)
        is_cold = cold_s > 0.0
        sent.outcome = Outcome(name, family, ending, service_s, wait_s, timeout_s, ended, is_cold, features, cold_s)
        self._plan(ended, _REPLY, sent)
        is_lost = ending is not Ending.RAN
        return (timeout_s if is_lost else wait_s + service_s), is_lost

    def _plan(self, at: float, kind: int, what: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, kind, what))

    def _until(self, now: float) -> None:
        """Let everything happen that does until a moment."""
        while self._events and self._events[0][0] <= now:
            at, _, kind, what = heapq.heappop(self._events)
            if kind == _REPORT:
                if now < float("inf"):
                    self._report(what, at)
                    self._plan(at + self._every_s, _REPORT, what)
                continue
            self._now = at
            self._answer(what, at)
        self._now = now

    def _answer(self, sent: _Sent, at: float) -> None:
        """Let a pool answer a handle."""
        self._answered[sent.place] += 1
        pool, name = self._pools[sent.arm], self._pool_names[sent.arm]
        if sent.outcome is not None:
            pool.release(sent.expected_s)
            self._in_flight -= 1
        if sent.sending is not None:
            handle = self._handles[sent.handle]
            sent.sending.__exit__(None, None, None)
            handle.views[name].note(pool.load(at), at)
            handle.told_at[name] = at
            if sent.outcome is not None:
                handle.outcomes.append(sent.outcome)

    def _report(self, number: int, at: float) -> None:
        """Let one handle tell what it learned, and take what the policy is now."""
        handle, policy = self._handles[number], self._policy
        assert isinstance(policy, Learning)
        if handle.outcomes:
            for outcome in handle.outcomes:
                policy.update(outcome)
            handle.outcomes.clear()
        if len(self._handles) > 1:  # a single one reports whatever the policy learns: its snapshot is the policy
            if self._published is None or at >= self._published_at + self._every_s * _REUSED:
                self._published, self._published_at = _copy(policy), at
            handle.policy = self._published or handle.policy


def _copy(policy: Any) -> Any:
    """Return a snapshot: by way of the wire if the policy has one, as in production."""
    if hasattr(policy, "from_wire") and hasattr(policy, "to_wire"):
        return type(policy).from_wire(policy.to_wire())
    return pickle.loads(pickle.dumps(policy, pickle.HIGHEST_PROTOCOL))
