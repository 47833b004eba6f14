"""The bandit that ships: latency as a sum of effects, its tail as it was seen, queues and failures apart.

For arm a and a task of family f with features x it believes of service time S

    log S = base + A_a + w_a . x + G_f + F_fa + o_a + noise

with a normal belief about each effect: the arm's level, what features matter to
it, how heavy the family is, how well this arm suits it, and a passing offset
that drifts (see `runvisor.policies.scheduling.effects`). A choice draws the
logarithm of each arm from what is believed and takes the arm that the objective
prices lowest, wait for an instance, cold start and failures included (see
`runvisor.policies.scheduling.pricing`).

Drawing from the belief: W. R. Thompson, Biometrika 25, 1933. Mean and deviation
in one objective: A. Sani, A. Lazaric and R. Munos, NeurIPS 2012. Sampling the
mean and not the variance: Q. Zhu and V. Tan, "Thompson Sampling Algorithms for
Mean-Variance Bandits", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from math import exp
from typing import Any, Final

from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, LatencyPrior, Load, Outcome, check_arms
from runvisor.policies.scheduling.beliefs import MAX_ARMS, ArmBelief, FamilyBelief
from runvisor.policies.scheduling.candidates import Candidates
from runvisor.policies.scheduling.effects import bounded, sums
from runvisor.policies.scheduling.failures import FailureRate
from runvisor.policies.scheduling.forecasts import Beliefs, Row, row_of
from runvisor.policies.scheduling.learning import Learning, expect
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.queueing import expected_wait
from runvisor.policies.scheduling.scoring import cold_prices, late_chances, shared_out, with_prior
from runvisor.policies.scheduling.tuning import Tuning
from runvisor.policies.scheduling.wire import check, named, numbers

VERSION: Final = 1
"""Of the state's form; another is refused."""
FIRST_LOG_S: Final = math.log(0.005)
"""What is expected before any outcome."""
FIRST_FAILURE_CHANCE: Final = 0.004
_TICKS: Final = 50.0
"""Beliefs that change with time alone are seen as of the last whole tick; so many are the shortest time constant."""
_MAX_ROWS: Final = 512
_MOST_LOG_S: Final = 20.0

_More = dict[str, tuple[int, float]]
"""Tasks and seconds of work, by pool, that pools have not counted yet."""


class HierarchicalScheduler:
    """Learns which arm suits which tasks, and chooses.

    Not for two threads at once while it learns: the supervisor's copy learns, a
    handle's copy (see `runvisor.policies.scheduling.snapshot`) only selects, and
    that from many threads.

    Args:
        tuning: The constants.
        objective: What to make small where a task does not say.
        prior: What to expect of new families; it is not part of the state.

    Example:
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> from runvisor.policies.scheduling.base import Ending
        >>> scheduler = HierarchicalScheduler()
        >>> for at in range(20):
        ...     scheduler.update(Outcome("wasm/record", "c-record:s", Ending.RAN, 0.001, 0.0, 5.0, at))
        ...     scheduler.update(Outcome("ebpf/record", "c-record:s", Ending.RAN, 0.010, 0.0, 5.0, at))
        >>> scheduler.select(Context("c-record:s", 5.0), ARMS[3:5], 20.0, ()).arm
        'wasm/record'
    """

    name = "hmv"

    def __init__(
        self,
        tuning: Tuning | None = None,
        objective: Objective | None = None,
        *,
        prior: LatencyPrior | None = None,
    ) -> None:
        self.tuning = tuning or Tuning()
        self.default_objective = objective or Objective()
        self.objective = self.default_objective.words
        self.prior = prior
        self._tick_s = min(self.tuning.failure_fade_s, self.tuning.drift_reversion_s) / _TICKS
        self._base = FIRST_LOG_S
        self._seen = 0
        self._arms: dict[str, ArmBelief] = {}
        self._families: dict[str, FamilyBelief] = {}
        self._failures = FailureRate()
        self._rows: dict[tuple[Any, ...], Row] = {}
        self._probes: dict[str, float] = {}

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Choose the arm that the objective prices lowest; see `Selector.select`.

        A tripped arm that is due for a probe gets the next task that is not
        critical; this copy then leaves it alone until the probe's outcome or the
        task's time limit.
        """
        return self._choose(context, arms, now, draws, None)[0]

    def select_many(
        self, tasks: Sequence[tuple[Context, Sequence[Arm]]], now: float, draws: Sequence[Sequence[float]]
    ) -> list[Choice]:
        """Choose for many tasks that are sent at once.

        Each choice counts in the queues that the next one sees, so that a batch
        spreads over the pools instead of all going where it was quiet before.

        Args:
            tasks: Context and eligible arms of each, in the order in which they are sent.
            now: Unix time in seconds.
            draws: For each task what `select` takes.

        Raises:
            ValueError: As for `select`, or not as many draws as tasks.
        """
        if len(draws) != len(tasks):
            raise ValueError(f"{len(draws)} rows of draws for {len(tasks)} tasks")
        more: _More = {}
        choices: list[Choice] = []
        for (context, arms), row in zip(tasks, draws, strict=True):
            choice, runtime, work_s = self._choose(context, arms, now, row, more)
            pool = runtime if runtime in context.loads else choice.arm
            count, sent_s = more.get(pool, (0, 0.0))
            more[pool] = (count + 1, sent_s + work_s)
            choices.append(choice)
        return choices

    def update(self, outcome: Outcome) -> None:
        """Learn from one outcome; an arm beyond `MAX_ARMS` is not learned."""
        self._rows.clear()
        arm = self._arms.get(outcome.arm)
        if arm is None:
            if len(self._arms) >= MAX_ARMS:
                return
            arm = self._arms[outcome.arm] = ArmBelief(self.tuning)
        self._probes.pop(outcome.arm, None)
        features = bounded(outcome.features)
        family, is_new = self._touch(outcome.family)
        lesson = Learning(self.tuning, self._base, arm, family, outcome, features)
        is_expected = is_new and self.prior is not None and self._expect(family, outcome.family, features)
        if lesson.learn_failures(self._failures):
            for other in self._families.values():
                if (own := other.arms.get(outcome.arm)) is not None:
                    own.failures.forgive(0.2)
        shift = lesson.learn_latency(calibrates=self._seen < 3 and not is_expected)
        if shift is not None:
            self._seen += 1
            self._base += shift / self._seen

    def calibrate(self, priors: Mapping[str, float]) -> None:
        """Take what a self-test measured of arms that have not run yet.

        Args:
            priors: Typical seconds of the same short task on each arm, by its name.

        Raises:
            ConfigError: An arm's time is no duration.

        Example:
            >>> from runvisor.policies.scheduling.arms import ARMS
            >>> scheduler = HierarchicalScheduler()
            >>> scheduler.calibrate({"ebpf/record": 0.02, "wasm/record": 0.001})
            >>> scheduler.select(Context("c-record:s", 5.0), ARMS[3:5], 0.0, ()).arm
            'wasm/record'
        """
        for name, seconds in priors.items():
            if not 0 < seconds <= 1e9:
                raise ConfigError(f"{seconds!r} s is no time of {name}", "priors")
        self._rows.clear()
        fresh = {name: math.log(seconds) for name, seconds in priors.items() if name not in self._arms}
        middle = sum(fresh.values()) / max(1, len(fresh))
        for name, log_s in fresh.items():
            if len(self._arms) < MAX_ARMS:
                arm = self._arms[name] = ArmBelief(self.tuning)
                arm.level.mean = log_s - middle

    def _choose(
        self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float], more: _More | None
    ) -> tuple[Choice, str, float]:
        """Return a choice, its runtime, and the seconds of work that it is."""
        if not arms or len(draws) < len(arms):
            check_arms(arms, draws)
        objective = context.objective or self.default_objective
        row = self._row(context, arms, now)
        explore = bool(draws) and not context.critical and row.is_known
        timeout_s, features = context.timeout_s, context.features
        waits_s, prices = self._waits(row, context.loads, now, more)
        added = sums(row.weights, features) if features else row.nothing
        if self.prior is not None and row.unseen:
            added = with_prior(self.prior, row, context, added)
        fixed = prices or row.nothing
        if row.colds is not None:
            fixed = [price + cold for price, cold in zip(fixed, cold_prices(row, context.cold), strict=True)]
        times_s: list[float] = []
        plain: list[float] = []
        scores: list[float] = []
        for (log_s, doubt, scale, risk), more_log, price, draw in zip(
            row.terms, added, fixed, draws if explore else row.nothing, strict=False
        ):
            log_s += more_log
            time_s = exp(log_s if log_s < _MOST_LOG_S else _MOST_LOG_S)
            if risk:
                price += risk * timeout_s
            times_s.append(time_s)
            plain.append(scale * time_s + price)
            moved = doubt * draw
            scores.append(scale * time_s * exp(moved if moved < _MOST_LOG_S else _MOST_LOG_S) + price)
        if objective.kind == "slo":
            moves = [
                term.doubt * draw for term, draw in zip(row.terms, draws if explore else row.nothing, strict=False)
            ]
            sampled_s = [time_s * exp(min(moved, _MOST_LOG_S)) for time_s, moved in zip(times_s, moves, strict=True)]
            scores = late_chances(objective.slo_s, row, context, waits_s, sampled_s, scores)
            plain = late_chances(objective.slo_s, row, context, waits_s, times_s, plain) if explore else scores
        elif objective.kind == "throughput":
            scores = shared_out(arms, context.loads, waits_s, scores)
            plain = shared_out(arms, context.loads, waits_s, plain) if explore else scores
        if row.tripped:
            chosen, explored = self._pick(row, context, now, plain, scores, explore=explore)
        else:
            chosen = scores.index(min(scores))
            explored = explore and plain[chosen] > min(plain)
        work_s = times_s[chosen] * row.behind[chosen].mean
        candidates = Candidates(lambda: row.candidates(times_s, scores, waits_s))
        words = context.objective.words if context.objective is not None else ""
        return Choice(row.names[chosen], explored, candidates, words, work_s), arms[chosen].runtime, work_s

    def _pick(
        self,
        row: Row,
        context: Context,
        now: float,
        plain: Sequence[float],
        scores: Sequence[float],
        *,
        explore: bool,
    ) -> tuple[int, bool]:
        """Return the chosen index and whether it was taken to learn, where some breaker is not closed."""
        if explore and len(scores) > 1:
            for index, breaker in row.tripped:
                name = row.names[index]
                if breaker.wants_probe(now) and self._probes.get(name, now) <= now:
                    self._probes[name] = now + context.timeout_s
                    return index, True
        patience_s = self.tuning.failure_fade_s
        avoided = {index for index, breaker in row.tripped if breaker.is_open(now, patience_s)}
        left = [index for index in range(len(scores)) if index not in avoided] or range(len(scores))
        chosen = min(left, key=scores.__getitem__)
        return chosen, explore and plain[chosen] > min(plain[index] for index in left)

    def _row(self, context: Context, arms: Sequence[Arm], now: float) -> Row:
        """Return what is believed of the arms for a family, made anew when time or learning has moved it."""
        if not isinstance(arms, tuple):
            arms = tuple(arms)  # what can change is not compared by identity
        key: tuple[Any, ...] = (context.family, id(arms))
        if context.objective is not None:
            key = (context.family, id(arms), context.objective)
        tick = now // self._tick_s
        row = self._rows.get(key)
        if row is None or row.arms is not arms or row.tick != tick:
            at = tick * self._tick_s
            beliefs = Beliefs(self._base, self._arms, self._overall_failure_chance(at), self.tuning)
            objective = context.objective or self.default_objective
            row = row_of(beliefs, self._families.get(context.family), arms, objective, at, tick)
            if len(self._rows) >= _MAX_ROWS:
                self._rows.clear()
            self._rows[key] = row
        return row

    def _waits(
        self, row: Row, loads: Mapping[str, Load], now: float, more: _More | None
    ) -> tuple[list[float] | None, list[float] | None]:
        """Return the expected wait for each arm, and what it counts; None if no pool's load is known."""
        if not loads and not more:
            return None, None
        waiting, unsteady = row.wait_price
        fade_s = self.tuning.load_fade_s
        waits_s, prices = row.nothing.copy(), row.nothing.copy()
        count, sent_s = 0, 0.0
        for index, (runtime, arm, service_s, square, usual_s) in enumerate(row.queues):
            load = loads.get(runtime) or loads.get(arm)
            if load is None:
                continue
            if more:
                count, sent_s = more.get(runtime if runtime in loads else arm, (0, 0.0))
            if usual_s or load.idle <= load.waiting + count:
                wait_s, off = expected_wait(load, service_s, square, usual_s, now, fade_s, count, sent_s)
                waits_s[index] = wait_s
                prices[index] = waiting * wait_s + unsteady * off
        return waits_s, prices

    def _expect(self, family: FamilyBelief, name: str, features: Sequence[float]) -> bool:
        """Let the prior say what a new family is like; says whether it could."""
        assert self.prior is not None
        answers = {arm: self.prior.log_mean_s(arm, name, features) for arm in self._arms}
        known = {arm: log_s for arm, log_s in answers.items() if log_s is not None}
        return expect(family, known, self._arms, self._base, features, self.tuning)

    def _overall_failure_chance(self, at: float) -> float:
        tuning = self.tuning
        return self._failures.share(at, FIRST_FAILURE_CHANCE, tuning.failure_strength, tuning.failure_fade_s)

    def _touch(self, name: str) -> tuple[FamilyBelief, bool]:
        """Return a family and whether it is new; it becomes the last one to be forgotten."""
        family = self._families.pop(name, None)
        is_new = family is None
        if family is None:
            family = FamilyBelief(self.tuning)
            while len(self._families) >= self.tuning.max_families:
                del self._families[next(iter(self._families))]
        self._families[name] = family
        return family, is_new

    def to_wire(self) -> dict[str, Any]:
        """Return the state as plain data; families in order of use, oldest first."""
        return {
            "version": VERSION,
            "tuning": self.tuning.to_wire(),
            "objective": self.default_objective.to_wire(),
            "base": [self._base, self._seen],
            "failures": self._failures.to_wire(),
            "arms": {name: arm.to_wire() for name, arm in self._arms.items()},
            "families": {name: family.to_wire() for name, family in self._families.items()},
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any], *, prior: LatencyPrior | None = None) -> HierarchicalScheduler:
        """Rebuild a scheduler.

        Raises:
            ProtocolError: The data does not describe one, or one of another version.
        """
        try:
            if data["version"] != VERSION:
                raise ProtocolError(f"a policy of version {data['version']!r}", "", f"this one reads {VERSION}")
            tuning = Tuning.from_wire(data["tuning"])
            scheduler = cls(tuning, Objective.from_wire(data["objective"]), prior=prior)
            base, seen = numbers(data["base"], 2)
            check(holds=abs(base) <= 100 and seen in (0, 1, 2, 3), what="the base")
            scheduler._base, scheduler._seen = base, int(seen)
            scheduler._failures = FailureRate.from_wire(*numbers(data["failures"], 3))
            scheduler._arms = {name: ArmBelief.from_wire(arm, tuning) for name, arm in named(data["arms"], MAX_ARMS)}
            scheduler._families = {
                name: FamilyBelief.from_wire(family, tuning)
                for name, family in named(data["families"], tuning.max_families)
            }
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ProtocolError(f"not a policy {cls.name}: {type(error).__name__}: {error}") from None
        return scheduler
