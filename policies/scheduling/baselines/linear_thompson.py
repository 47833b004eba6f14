"""Linear Thompson sampling on log loss, with a second linear model for its variance.

Means: S. Agrawal and N. Goyal, "Thompson Sampling for Contextual Bandits with
Linear Payoffs", ICML 2013. The variance head regresses the logarithm of squared
residuals: A. C. Harvey, "Estimating Regression Models with Multiplicative
Heteroscedasticity", Econometrica 44(3), 1976.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Choice, Context, Outcome, check_arms, load_of
from runvisor.policies.scheduling.baselines.losses import loss_s, queue_s
from runvisor.policies.scheduling.decision import Candidate

_BUCKETS: Final = 64
"""Columns that families are hashed into."""
_PRIOR: Final = 4.0
"""Variance of a coefficient before any outcome."""
_NOISE: Final = 0.3
_LOG_CHI2: Final = -1.27
"""Mean of the logarithm of a squared standard normal variable."""
_UNIT_S: Final = 1e-3
"""What an arm is expected to take before its first outcome; optimistic, so that it is tried."""
_LEAST_S: Final = 1e-6

Vector = npt.NDArray[np.float64]


class _Model:
    """One arm's two regressions."""

    __slots__ = ("coefficients", "count", "covariance", "noise", "service_s", "spread")

    def __init__(self, size: int) -> None:
        self.covariance = np.eye(size) * _PRIOR
        """Over the noise."""
        self.coefficients = np.zeros(size)
        self.spread = np.zeros(size)
        """Coefficients of the log variance, against the arm's own."""
        self.noise = _NOISE
        self.service_s = 0.0
        self.count = 0


class LinearThompsonScheduler:
    """Samples each arm's mean log loss and minimises mean + rho * deviation of the log-normal loss.

    The columns are a constant, the features, the family (hashed) and whether the
    arm would start cold, where the caller says that.

    Args:
        explore: Standard deviations of doubt that a draw of one stands for.
        rho: Weight of the deviation.
        keep: Weight that old outcomes keep with each new one of the arm; 1 forgets nothing.
        sees_queue: Whether to add the wait that is expected from the pool's load.
    """

    name = "linear-thompson"
    objective = "sampled mean and deviation"

    def __init__(self, explore: float = 0.1, *, rho: float = 1.0, keep: float = 0.998, sees_queue: bool = True) -> None:
        self.explore = explore
        self.rho = rho
        self.keep = keep
        self._sees_queue = sees_queue
        self._models: dict[str, _Model] = {}

    def select(self, context: Context, arms: Sequence[Arm], now: float, draws: Sequence[float]) -> Choice:
        """Choose the arm with the least sampled objective; see `Selector.select`."""
        del now
        check_arms(arms, draws)
        explore = 0.0 if context.critical or not draws else self.explore
        row = self._row(context.family, context.features)
        candidates: list[Candidate] = []
        taken = greedy = 0
        least = least_greedy = math.inf
        for place, arm in enumerate(arms):
            row[1] = float(context.cold is not None and arm.name in context.cold)
            model = self._model(arm.name, len(row))
            log_mean = float(model.coefficients @ row)
            doubt = math.sqrt(max(0.0, float(row @ model.covariance @ row)) * model.noise)
            variance = _clipped(model.noise * math.exp(_clipped(float(model.spread @ row), -3.0, 3.0)), 1e-4, 4.0)
            wait = queue_s(load_of(arm, context.loads), model.service_s) if self._sees_queue else 0.0
            mean = _UNIT_S * math.exp(min(20.0, log_mean + variance / 2.0))
            std = mean * math.sqrt(math.expm1(variance))
            expected = mean + self.rho * std + wait
            sampled = expected
            if explore:
                factor = math.exp(_clipped(explore * doubt * draws[place], -20.0, 20.0))
                sampled = (mean + self.rho * std) * factor + wait
            if sampled < least:
                least, taken = sampled, place
            if expected < least_greedy:
                least_greedy, greedy = expected, place
            candidates.append(Candidate(arm.name, mean, std, model.count, sampled))
        return Choice(arms[taken].name, taken != greedy, tuple(candidates))

    def update(self, outcome: Outcome) -> None:
        """Learn from one outcome: recursive least squares on the log loss, then on its log squared residual."""
        row = self._row(outcome.family, outcome.features)
        row[1] = float(outcome.cold)
        model = self._models.get(outcome.arm)
        if model is None or len(model.coefficients) != len(row):
            model = self._models[outcome.arm] = _Model(len(row))
        residual = math.log(max(_LEAST_S, loss_s(outcome)) / _UNIT_S) - float(model.coefficients @ row)
        toward = model.covariance @ row
        doubt = 1.0 + float(row @ toward)
        gain = toward / doubt
        model.coefficients = model.coefficients + gain * residual
        model.covariance = model.covariance - np.outer(gain, toward)
        if self.keep < 1.0 and float(np.trace(model.covariance)) < 0.25 * _PRIOR * len(row):
            model.covariance /= self.keep  # forgets only while it is sure: no wind-up where nothing is seen
        model.count += 1
        square = min(residual * residual / doubt, 9.0)  # what doubt about the mean adds is no noise
        step = max(0.01, 1.0 / (model.count + 5))
        model.noise += step * (square - model.noise)
        model.service_s += max(0.01, 1.0 / model.count) * (outcome.service_s - model.service_s)
        surprise = math.log(square + 1e-4) - _LOG_CHI2 - math.log(model.noise + 1e-4)
        surprise = _clipped(surprise, -6.0, 4.0)
        model.spread = model.spread + 0.5 * gain * (surprise - float(model.spread @ row))

    def _model(self, arm: str, size: int) -> _Model:
        model = self._models.get(arm)
        return model if model is not None and len(model.coefficients) == size else _Model(size)

    @staticmethod
    def _row(family: str, features: Sequence[float]) -> Vector:
        row = np.zeros(2 + len(features) + _BUCKETS)
        row[0] = 1.0
        row[2 : 2 + len(features)] = features
        row[2 + len(features) + zlib.crc32(family.encode()) % _BUCKETS] = 1.0
        return row


def _clipped(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)
