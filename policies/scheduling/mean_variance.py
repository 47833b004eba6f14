"""The first bandit: mean and variance of latency per arm and task family, with Thompson sampling.

For each (family, arm) it believes the logarithm of service time to be normal.
The mean is shrunk towards the arm's overall mean, by how far families of that
arm lie apart, and the variance towards the arm's usual variance: a hierarchical
normal model with plug-in variances (Gelman et al., Bayesian Data Analysis,
3rd ed., section 5.4):

    s2   = (NU * noise_a + n * var_fa) / (NU + n - 1)          variance of one run
    mu   = m_a + n / (n + s2/tau2_a) * (m_fa - m_a)            mean of the logarithm
    v    = s2 / (n + s2/tau2_a) + staleness                    how unsure of mu
    mean = exp(mu + s2/2),  std = mean * sqrt(exp(s2) - 1)     log-normal moments

and takes the arm with the least

    wait + (mean + rho*std) * exp(explore*sqrt(v)*N(0,1)) + P(failure) * timeout

Mean and deviation in one objective: Sani, Lazaric and Munos, "Risk-Aversion in
Multi-Armed Bandits", NeurIPS 2012, here with the deviation, so that both terms
are seconds. Sampling the mean and not the variance: Zhu and Tan, "Thompson
Sampling Algorithms for Mean-Variance Bandits", ICML 2020. An arm that nobody
has tried is expected to be as fast as the best one, and is very uncertain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, TypeAlias

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import (
    MAX_NAME_CHARS,
    Choice,
    Context,
    Ending,
    Outcome,
    check_arms,
    load_of,
)
from runvisor.policies.scheduling.belief import MOST_LOG_S, Belief, FailureRate, log_beyond, numbers
from runvisor.policies.scheduling.decision import Candidate
from runvisor.policies.values import is_number

MAX_ARMS: Final = 64
_PRIOR_LOG_S: Final = math.log(0.005)
_PRIOR_NOISE: Final = 0.15
_PRIOR_SPREAD: Final = 1.0
"""Variance of the log means of an arm's families, before they are known."""
_NOISE_STRENGTH: Final = 5.0
_SPREAD_STRENGTH: Final = 3.0
_LEAST_NOISE: Final = 0.003
_MOST_NOISE: Final = 4.0
_MOST_SURPRISE: Final = 16.0
_LEAST_LOG_S: Final = math.log(1e-6)
_CLIP: Final = 4.0
"""A single run counts at most this many predicted deviations away from the mean."""


_NO_FAILURE: Final = 1e-6
_Forecast: TypeAlias = tuple[float, float, float, float, float, float, int, float]
"""(mean of the logarithm, mean, deviation, mean + rho*std, doubt, last run's time, runs, pace of its queue)."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The constants an operator may change, with units."""

    rho: float = 1.0
    """Seconds of mean that a second of deviation is worth."""
    explore: float = 1.0
    """How strongly doubt about an arm leads to trying it; 0 never does."""
    memory: int = 100
    """Runs after which older ones fade."""
    stale_per_s: float = 1e-4
    """Variance that an arm's log mean gains per second without a run."""
    most_stale: float = 0.5
    """Where that ends."""
    failure_fade_s: float = 60.0
    """The time in which evidence of failures fades to 1/e."""
    failure_strength: float = 10.0
    """How many trials the expected failure rate is worth."""
    max_families: int = 256
    """Families kept; the one not seen for longest makes room."""

    def __post_init__(self) -> None:
        for name in ("rho", "explore", "stale_per_s", "most_stale"):
            if not is_number(number := getattr(self, name)) or number < 0:
                raise ValueError(f"{name} is a number of at least 0, not {number!r}")
        for name in ("failure_fade_s", "failure_strength"):
            if not is_number(number := getattr(self, name)) or number <= 0:
                raise ValueError(f"{name} is a number above 0, not {number!r}")
        for name in ("memory", "max_families"):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 1_000_000:
                raise ValueError(f"{name} is a whole number of at least 1, not {number!r}")


class _ArmState:
    """One arm over all families."""

    __slots__ = ("failures", "latency", "noise", "service_s")

    def __init__(self, latency: Belief, noise: Belief, service_s: float, failures: FailureRate) -> None:
        self.latency = latency
        """Log latency of all families together: its variance says how far they lie apart."""
        self.noise = noise
        """Squared surprises inside a family: its mean is the variance of one run."""
        self.service_s = service_s
        """Running mean of service time, for the queue's sake."""
        self.failures = failures


class _FamilyState:
    """One arm in one family."""

    __slots__ = ("failures", "latency")

    def __init__(self, latency: Belief, failures: FailureRate) -> None:
        self.latency = latency
        self.failures = failures


class MeanVarianceScheduler:
    """Chooses by mean plus deviation and learns both.

    Not for two threads at once: the supervisor's copy learns, a handle's copy
    (see `runvisor.policies.scheduling.snapshot`) only selects.

    Args:
        tuning: The constants.

    Example:
        >>> from runvisor.policies.scheduling.arms import ARMS
        >>> scheduler = MeanVarianceScheduler()
        >>> for at in range(20):
        ...     scheduler.update(Outcome("wasm/record", "c-record:s", Ending.RAN, 0.001, 0.0, 5.0, at))
        ...     scheduler.update(Outcome("ebpf/record", "c-record:s", Ending.RAN, 0.010, 0.0, 5.0, at))
        >>> scheduler.select(Context("c-record:s", 5.0), ARMS[3:5], 20.0, ()).arm
        'wasm/record'
    """

    name = "mean-variance"

    def __init__(self, tuning: Tuning | None = None) -> None:
        self.tuning = tuning or Tuning()
        weight = "" if self.tuning.rho == 1 else f"{self.tuning.rho:g} times its "
        self.objective = f"sum of expected time, {weight}deviation, waiting time and the price of failures"
        self._arms: dict[str, _ArmState] = {}
        self._families: dict[str, dict[str, _FamilyState]] = {}
        self._failures = FailureRate()
        self._forecasts: dict[str, dict[str, _Forecast | None]] = {}

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Choose the arm with the least objective; see `Selector.select`."""
        check_arms(arms, draws)
        tuning, loads = self.tuning, context.loads
        explore = 0.0 if context.critical or not draws else tuning.explore
        names = [arm.name for arm in arms]
        forecasts = [self._forecast(context.family, name) for name in names]
        if not any(forecasts):
            explore = 0.0  # nothing is known of any: the order of preference decides, not chance
        untried: _Forecast | None = None
        failing = self._failures.failures > _NO_FAILURE
        candidates: list[Candidate] = []
        chosen = greedy = 0
        least = least_greedy = math.inf
        for index, forecast in enumerate(forecasts):
            if forecast is None:
                forecast = untried = untried or self._optimism(forecasts)
            _, mean, std, time_s, doubt, at, samples, service_s = forecast
            price = self._failure_chance(names[index], context.family, now) * context.timeout_s if failing else 0.0
            if loads and (load := load_of(arms[index], loads)) is not None and load.waiting >= load.idle:
                price += (load.waiting + 1 - load.idle) / max(1, load.idle + load.busy) * service_s
            score = expected = price + time_s
            if explore:
                if now > at:
                    doubt += min(tuning.most_stale, tuning.stale_per_s * (now - at))
                score = price + time_s * math.exp(min(20.0, explore * math.sqrt(doubt) * draws[index]))
            if score < least:
                least, chosen = score, index
            if expected < least_greedy:
                least_greedy, greedy = expected, index
            candidates.append(Candidate(names[index], mean, std, samples, score))
        return Choice(names[chosen], chosen != greedy, tuple(candidates))

    def update(self, outcome: Outcome) -> None:
        """Learn from one outcome; an arm beyond `MAX_ARMS` is not learned."""
        arm = self._arms.get(outcome.arm)
        if arm is None:
            if len(self._arms) >= MAX_ARMS:
                return
            arm = self._arms[outcome.arm] = _ArmState(Belief(), Belief(), 0.0, FailureRate())
        family = self._touch(outcome.family)
        state = family.get(outcome.arm)
        if state is None:
            state = family[outcome.arm] = _FamilyState(Belief(), FailureRate())
        failed, fade_s = outcome.ending is Ending.FAILED, self.tuning.failure_fade_s
        self._forecasts.clear()
        for rate in (self._failures, arm.failures, state.failures):
            rate.add(failed=failed, at=outcome.at, fade_s=fade_s)
        if not failed:
            self._learn_latency(arm, state, outcome)

    def _learn_latency(self, arm: _ArmState, state: _FamilyState, outcome: Outcome) -> None:
        log_mean, doubt, noise = _posterior(arm, state, self.tuning.memory)
        deviation = math.sqrt(noise + doubt)
        memory = self.tuning.memory
        if outcome.ending is Ending.TIMED_OUT:
            bound = math.log(max(outcome.service_s, outcome.timeout_s, 1e-6))
            value = min(MOST_LOG_S, log_beyond(bound, log_mean, deviation))
        else:
            value = max(_LEAST_LOG_S, math.log(outcome.service_s) if outcome.service_s > 0 else _LEAST_LOG_S)
            if state.latency.count:
                value = min(max(value, log_mean - _CLIP * deviation), log_mean + _CLIP * deviation)
        count = state.latency.count
        if count:  # the surprise of a mean learned from n runs is 1 + 1/n times too large
            surprise = (value - state.latency.mean) ** 2 * count / (count + 1)
            arm.noise.add(min(surprise, _MOST_SURPRISE), memory)
        state.latency.add(value, memory)
        arm.latency.add(value, memory)
        arm.service_s += (math.exp(value) - arm.service_s) / min(arm.latency.count, memory)

    def _forecast(self, family: str, name: str) -> _Forecast | None:
        """Return what is expected of an arm, or None if nobody has tried it; kept until the next update."""
        forecasts = self._forecasts.get(family)
        if forecasts is None:
            if len(self._forecasts) >= self.tuning.max_families:
                self._forecasts.clear()
            forecasts = self._forecasts[family] = {}
        if name not in forecasts:
            arm = self._arms.get(name)
            if arm is None or not arm.latency.count:
                forecasts[name] = None
            else:
                state = self._families.get(family, {}).get(name) or _FamilyState(Belief(), arm.failures)
                log_mean, doubt, noise = _posterior(arm, state, self.tuning.memory)
                samples = state.latency.count or arm.latency.count
                forecasts[name] = self._moments(log_mean, doubt, noise, state.failures.at, samples, arm.service_s)
        return forecasts[name]

    def _optimism(self, forecasts: Sequence[_Forecast | None]) -> _Forecast:
        """Expect an untried arm to be as fast as the fastest one, with much doubt."""
        log_mean = min((forecast[0] for forecast in forecasts if forecast is not None), default=_PRIOR_LOG_S)
        return self._moments(log_mean, _PRIOR_SPREAD, _PRIOR_NOISE, math.inf, 0, math.exp(log_mean))

    def _moments(
        self, log_mean: float, doubt: float, noise: float, at: float, samples: int, service_s: float
    ) -> _Forecast:
        mean = math.exp(log_mean + 0.5 * noise)
        std = mean * math.sqrt(math.expm1(noise))
        return log_mean, mean, std, mean + self.tuning.rho * std, doubt, at, samples, service_s

    def _failure_chance(self, name: str, family: str, now: float) -> float:
        """Expect failures as in the family, then as of the arm, then as of all arms."""
        strength, fade_s = self.tuning.failure_strength, self.tuning.failure_fade_s
        chance = self._failures.estimate(now, 0.0, strength=strength, fade_s=fade_s)
        if (arm := self._arms.get(name)) is not None:
            chance = arm.failures.estimate(now, chance, strength=strength, fade_s=fade_s)
            if (state := self._families.get(family, {}).get(name)) is not None:
                chance = state.failures.estimate(now, chance, strength=strength, fade_s=fade_s)
        return chance

    def _touch(self, name: str) -> dict[str, _FamilyState]:
        """Return a family's states and make it the last to be forgotten."""
        family = self._families.pop(name, None)
        if family is None:
            family = {}
            while len(self._families) >= self.tuning.max_families:
                del self._families[next(iter(self._families))]
        self._families[name] = family
        return family

    def to_wire(self) -> dict[str, Any]:
        """Return the state as plain data; families in order of use, oldest first."""
        return {
            "tuning": asdict(self.tuning),
            "failures": self._failures.to_wire(),
            "arms": {
                name: [*arm.latency.to_wire(), *arm.noise.to_wire(), arm.service_s, *arm.failures.to_wire()]
                for name, arm in self._arms.items()
            },
            "families": {
                name: {arm: [*state.latency.to_wire(), *state.failures.to_wire()] for arm, state in family.items()}
                for name, family in self._families.items()
            },
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> MeanVarianceScheduler:
        """Rebuild a scheduler.

        Raises:
            ProtocolError: The data does not describe one.
        """
        try:
            tuning = Tuning(**{f.name: data["tuning"][f.name] for f in fields(Tuning)})
            scheduler = cls(tuning)
            scheduler._failures = FailureRate.from_wire(numbers(data["failures"], 3))
            scheduler._arms = {name: _arm_state(row) for name, row in _named(data["arms"], MAX_ARMS)}
            scheduler._families = {
                name: {arm: _family_state(row) for arm, row in _named(family, MAX_ARMS)}
                for name, family in _named(data["families"], tuning.max_families)
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"not a mean-variance policy: {type(error).__name__}: {error}") from None
        return scheduler


def _posterior(arm: _ArmState, state: _FamilyState, memory: int) -> tuple[float, float, float]:
    """Return the mean of the logarithm, the doubt about it and the variance of one run."""
    overall, usual, own = arm.latency, arm.noise, state.latency
    if not overall.count:
        return _PRIOR_LOG_S, _PRIOR_SPREAD, _PRIOR_NOISE
    runs = min(overall.count, memory)
    spread = (_SPREAD_STRENGTH * _PRIOR_SPREAD + runs * overall.variance) / (_SPREAD_STRENGTH + runs - 1)
    runs = min(usual.count, memory)
    noise = (_NOISE_STRENGTH * _PRIOR_NOISE + runs * usual.mean) / (_NOISE_STRENGTH + runs)
    if not own.count:
        return overall.mean, spread, min(max(noise, _LEAST_NOISE), _MOST_NOISE)
    runs = min(own.count, memory)
    noise = (_NOISE_STRENGTH * noise + runs * own.variance) / (_NOISE_STRENGTH + runs - 1)
    noise = min(max(noise, _LEAST_NOISE), _MOST_NOISE)
    weight = 1.0 / (runs + noise / spread)
    return overall.mean + runs * weight * (own.mean - overall.mean), noise * weight, noise


def _arm_state(data: object) -> _ArmState:
    row = numbers(data, 10)
    if not 0 <= row[6] <= math.exp(MOST_LOG_S) * 2:
        raise ProtocolError("a service time is out of range")
    return _ArmState(Belief.from_wire(row[:3]), Belief.from_wire(row[3:6]), row[6], FailureRate.from_wire(row[7:]))


def _family_state(data: object) -> _FamilyState:
    row = numbers(data, 6)
    return _FamilyState(Belief.from_wire(row[:3]), FailureRate.from_wire(row[3:]))


def _named(table: Mapping[str, Any], limit: int) -> list[tuple[str, Any]]:
    items = list(table.items())
    if len(items) > limit or not all(isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS for name, _ in items):
        raise ProtocolError(f"a table of a policy has more than {limit} rows, or one without a name")
    return items
