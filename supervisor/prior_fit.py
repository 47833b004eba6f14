"""The models that a prior can be made of: ridge regression and boosted trees, by scikit-learn.

What is fitted is taken apart into numbers that `runvisor.policies.scheduling.prior`
evaluates by itself, so that no decision waits for scikit-learn.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from runvisor.policies.scheduling.prior import MAX_PARTS, ArmModel, Node, TrainedPrior, parts_of

MIN_ARM_RUNS: Final = 20
"""An arm with fewer runs is left to the scheduler's own start."""
KINDS: Final = ("ridge 1", "ridge 30", "boosting")
"""The kinds of model that are tried: ridge regression with a penalty, and boosted trees."""
_FOLDS: Final = 4
_TREE_PARTS: Final = 32
_Matrix: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """One past execution, as far as it says something of service time."""

    arm: str
    family: str
    features: tuple[float, ...]
    log_s: float
    at: float
    was_cut: bool
    """It timed out: its time is a lower bound, taken as it stands for want of better, and never scored."""


def fit(runs: Sequence[Run], kind: str) -> TrainedPrior:
    """Fit one kind of model on runs, one model for each arm."""
    counted = Counter(part for run in runs for part in set(parts_of(run.family)))
    known = [part for part, _ in counted.most_common(MAX_PARTS)]
    columns = known[:_TREE_PARTS] if kind == "boosting" else known
    by_arm: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_arm[run.arm].append(run)
    width = len(runs[0].features)
    models = {arm: _fit_arm(of_arm, kind, columns) for arm, of_arm in by_arm.items() if len(of_arm) >= MIN_ARM_RUNS}
    tree_columns = columns if kind == "boosting" else ()
    return TrainedPrior(models, features=width, columns=tree_columns, trained_until=max(run.at for run in runs))


def _fit_arm(runs: Sequence[Run], kind: str, columns: Sequence[str]) -> ArmModel:
    rows, target = rows_of(runs, columns), np.array([run.log_s for run in runs])
    estimator = estimator_of(kind)
    estimator.fit(rows, target)
    model = _boosted(estimator) if kind == "boosting" else _straightened(estimator, len(runs[0].features), columns)
    return replace(model, least=float(target.min()), most=float(target.max()), runs=len(runs))


def best_kind(runs: Sequence[Run]) -> str:
    """Return the kind of model with the least error on families that it has not seen."""
    by_arm: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_arm[run.arm].append(run)
    counted = Counter(part for run in runs for part in set(parts_of(run.family)))
    columns = [part for part, _ in counted.most_common(_TREE_PARTS)]
    squared = dict.fromkeys(KINDS, 0.0)
    for of_arm in by_arm.values():
        rows, target = rows_of(of_arm, columns), np.array([run.log_s for run in of_arm])
        for kind in KINDS:
            squared[kind] += _cross_error(rows, target, of_arm, kind) * len(of_arm)
    return min(squared, key=squared.__getitem__)


def estimator_of(kind: str) -> Any:
    """Return an unfitted scikit-learn regressor of one of `KINDS`."""
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "boosting":
        return GradientBoostingRegressor(
            n_estimators=32, max_depth=3, learning_rate=0.15, min_samples_leaf=10, subsample=0.7, random_state=0
        )
    return make_pipeline(StandardScaler(), Ridge(alpha=float(kind.removeprefix("ridge "))))


def _cross_error(rows: _Matrix, target: _Matrix, runs: Sequence[Run], kind: str) -> float:
    """Return the mean squared error over folds of whole families; the arm's own variance if there is one fold."""
    hands = dealt(runs, _FOLDS)
    folds = np.array([hands[run.family] for run in runs])
    present = np.unique(folds)
    if len(present) < 2:
        return float(target.var()) + 1.0
    squared = 0.0
    for fold in present:
        inside = folds != fold
        estimator = estimator_of(kind).fit(rows[inside], target[inside])
        guess = np.clip(estimator.predict(rows[~inside]), target[inside].min(), target[inside].max())
        squared += float(((guess - target[~inside]) ** 2).sum())
    return squared / len(target)


def rows_of(runs: Sequence[Run], columns: Sequence[str]) -> _Matrix:
    """Return what a regressor sees of each run: its features, then 0 or 1 for each of the words of families."""
    place = {part: index for index, part in enumerate(columns)}
    width = len(runs[0].features)
    rows = np.zeros((len(runs), max(1, width + len(columns))))
    for row, run in zip(rows, runs, strict=True):
        row[:width] = run.features
        for part in parts_of(run.family):
            if part in place:
                row[width + place[part]] = 1.0
    return rows


def _straightened(estimator: Any, width: int, columns: Sequence[str]) -> ArmModel:
    """Undo the scaling: weights for the features as they come."""
    scaler, ridge = estimator[0], estimator[1]
    weights = ridge.coef_ / scaler.scale_
    intercept = float(ridge.intercept_ - scaler.mean_ @ weights)
    effects = dict(zip(columns, weights[width:].tolist(), strict=False))
    parts = {part: effect for part, effect in effects.items() if effect}
    return ArmModel(intercept, tuple(weights[:width].tolist()), parts)


def _boosted(estimator: Any) -> ArmModel:
    trees = []
    for (tree,) in estimator.estimators_:
        parts = tree.tree_
        nodes: list[Node] = []
        columns = zip(parts.feature, parts.threshold, parts.children_left, parts.children_right, strict=True)
        for index, (column, threshold, low, high) in enumerate(columns):
            if low < 0:
                nodes.append((-1, float(parts.value[index].item()) * estimator.learning_rate, -1, -1))
            else:
                nodes.append((int(column), float(threshold), int(low), int(high)))
        trees.append(tuple(nodes))
    return ArmModel(float(estimator.init_.constant_.item()), trees=tuple(trees))


def dealt(runs: Sequence[Run], count: int) -> dict[str, int]:
    """Deal families out to so many hands: evenly, and the same way in every process."""
    families = sorted({run.family for run in runs}, key=lambda family: (zlib.crc32(family.encode()), family))
    return {family: index % count for index, family in enumerate(families)}
