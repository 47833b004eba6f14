"""What to expect of an arm on a kind of task that nobody has run yet, learned from past executions.

`runvisor policy train` fits it (see `runvisor.supervisor.training`); here it is
only evaluated, in plain Python. For each arm the logarithm of service time is

    intercept + w . features + sum of effects of the parts of the family's name + sum of trees

as a ridge regression gives it (no trees), or gradient boosting (no weights;
J. H. Friedman, Annals of Statistics 29(5), 2001). It is held within what was
seen of the arm, because a straight line knows nothing of where it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias

import msgpack

from runvisor.policies.errors import ProtocolError
from runvisor.policies.scheduling.base import MAX_NAME_CHARS
from runvisor.policies.scheduling.effects import MOST_LOG_S
from runvisor.policies.values import is_number

FORMAT: Final = 1
MAX_ARMS: Final = 64
MAX_FEATURES: Final = 64
MAX_PARTS: Final = 256
"""Parts of families' names with an effect of their own."""
MAX_TREES: Final = 64
MAX_NODES: Final = 63
"""Of one tree."""
_KEPT: Final = 2048
"""Answers that are remembered: the same code comes again and again."""

Node: TypeAlias = tuple[int, float, int, int]
"""(column, threshold, node at or below it, node above it); column -1 is a leaf whose value is the threshold."""
Tree: TypeAlias = tuple[Node, ...]


def parts_of(family: str) -> list[str]:
    """Return the words of a family's name; those that it shares with others tell what to expect of it.

    Example:
        >>> parts_of("python:xs:l1.1:math+numpy")
        ['python', 'xs', 'l1.1', 'math', 'numpy']
    """
    return family.replace("+", ":").split(":")


@dataclass(frozen=True, slots=True)
class ArmModel:
    """One arm's model of the logarithm of service seconds."""

    intercept: float
    weights: tuple[float, ...] = ()
    """One per feature, or none."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Effects of parts of the family's name; see `parts_of`."""
    trees: tuple[Tree, ...] = ()
    """Over the features and then, as 0 or 1, the prior's ``columns``."""
    least: float = -MOST_LOG_S
    """The least that it answers: the shortest run seen."""
    most: float = MOST_LOG_S
    """The most that it answers."""
    runs: int = 0
    """Executions that it was fitted on."""


class TrainedPrior:
    """Expected log latency by arm, for code that was never run.

    Args:
        arms: A model for each arm that is known.
        features: How many features a task has; tasks with another number get no answer.
        columns: The parts of families that trees look at.
        trained_until: When the last execution that it was fitted on ended, in Unix seconds.

    Example:
        >>> import math
        >>> model = ArmModel(math.log(0.002), (0.5,), {"python": 0.1}, least=-8.0, most=0.0)
        >>> prior = TrainedPrior({"python/native": model}, features=1)
        >>> round(prior.log_mean_s("python/native", "python:s", (1.0,)), 3)
        -5.615
        >>> prior.log_mean_s("v8/isolate", "javascript:s", (1.0,)) is None
        True
    """

    def __init__(
        self,
        arms: Mapping[str, ArmModel],
        *,
        features: int,
        columns: Sequence[str] = (),
        trained_until: float = 0.0,
    ) -> None:
        self.arms = dict(arms)
        self.features = features
        self.columns = tuple(columns)
        self.trained_until = trained_until
        self._answers: dict[tuple[str, str, tuple[float, ...]], float] = {}

    def log_mean_s(self, arm: str, family: str, features: Sequence[float] = ()) -> float | None:
        """Return the expected logarithm of an arm's service seconds, or None if the arm is not known.

        Args:
            arm: Its name.
            family: The task's family.
            features: As many as the prior was fitted with.
        """
        model = self.arms.get(arm)
        if model is None or len(features) != self.features:
            return None
        key = (arm, family, tuple(features))
        answer = self._answers.get(key)
        if answer is None:
            if len(self._answers) >= _KEPT:
                self._answers.clear()
            answer = self._answers[key] = self._evaluate(model, family, key[2])
        return answer

    def _evaluate(self, model: ArmModel, family: str, features: tuple[float, ...]) -> float:
        present = parts_of(family)
        value = model.intercept
        for weight, feature in zip(model.weights, features, strict=False):
            value += weight * feature
        if model.parts:
            for part in present:
                value += model.parts.get(part, 0.0)
        if model.trees:
            row = [*features, *(1.0 if column in present else 0.0 for column in self.columns)]
            for tree in model.trees:
                column, threshold, low, high = tree[0]
                while column >= 0:
                    column, threshold, low, high = tree[low if row[column] <= threshold else high]
                value += threshold
        # Written so that a sum that is not a number ends at a bound as well.
        return value if model.least <= value <= model.most else model.least if value < model.least else model.most

    def to_wire(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "format": FORMAT,
            "features": self.features,
            "columns": list(self.columns),
            "trained_until": self.trained_until,
            "arms": {
                name: {
                    "intercept": model.intercept,
                    "weights": list(model.weights),
                    "parts": dict(model.parts),
                    "trees": [[list(node) for node in tree] for tree in model.trees],
                    "least": model.least,
                    "most": model.most,
                    "runs": model.runs,
                }
                for name, model in self.arms.items()
            },
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> TrainedPrior:
        """Rebuild a prior; whatever it answers afterwards is a finite number, and found in bounded time.

        Raises:
            ProtocolError: The data does not describe one.
        """
        try:
            if data["format"] != FORMAT:
                raise ProtocolError(f"not a latency prior of format {FORMAT}", "prior", "train it anew")
            features, columns = data["features"], data["columns"]
            _require(type(features) is int and 0 <= features <= MAX_FEATURES, "features")
            _require(len(columns) <= MAX_PARTS and all(map(_is_name, columns)), "columns")
            _require(is_number(data["trained_until"]), "trained_until")
            arms = dict(data["arms"])
            _require(len(arms) <= MAX_ARMS and all(map(_is_name, arms)), "arms")
            width = features + len(columns)
            models = {name: _model(row, features, width) for name, row in arms.items()}
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ProtocolError(f"not a latency prior: {type(error).__name__}: {error}", "prior") from None
        return cls(models, features=features, columns=columns, trained_until=float(data["trained_until"]))


def packed(prior: TrainedPrior) -> bytes:
    """Return a prior as bytes: as it lies in its file and travels in snapshots."""
    return msgpack.packb(prior.to_wire()) or b""


@lru_cache(maxsize=4)
def unpacked(data: bytes) -> TrainedPrior:
    """Rebuild a prior from its bytes; the same bytes, which come with every snapshot, give the same prior.

    Raises:
        ProtocolError: They do not describe one.
    """
    try:
        wire = msgpack.unpackb(data)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a latency prior: {error}", "prior") from None
    if not isinstance(wire, dict):
        raise ProtocolError("not a latency prior", "prior")
    return TrainedPrior.from_wire(wire)


def _model(data: Mapping[str, Any], features: int, width: int) -> ArmModel:
    weights, parts, trees = data["weights"], dict(data["parts"]), data["trees"]
    plain = {name: data[name] for name in ("intercept", "least", "most")}
    _require(all(map(is_number, (*plain.values(), *weights, *parts.values()))), "a model's numbers")
    _require(len(weights) in (0, features), "weights")
    _require(len(parts) <= MAX_PARTS and all(map(_is_name, parts)), "parts")
    _require(-MOST_LOG_S <= plain["least"] <= plain["most"] <= MOST_LOG_S, "bounds")
    _require(len(trees) <= MAX_TREES, "trees")
    _require(type(data["runs"]) is int and data["runs"] >= 0, "runs")
    return ArmModel(
        weights=tuple(map(float, weights)),
        parts={name: float(effect) for name, effect in parts.items()},
        trees=tuple(_tree(tree, width) for tree in trees),
        runs=data["runs"],
        **{name: float(number) for name, number in plain.items()},
    )


def _tree(data: Sequence[Any], width: int) -> Tree:
    """Read a tree; children come after their parent, so that a walk ends."""
    _require(0 < len(data) <= MAX_NODES, "a tree's size")
    nodes: list[Node] = []
    for index, (column, threshold, low, high) in enumerate(data):
        _require(all(type(each) is int for each in (column, low, high)) and is_number(threshold), "a tree's node")
        _require(-1 <= column < width, "a tree's column")
        _require(column == -1 or index < min(low, high) <= max(low, high) < len(data), "a tree's branches")
        nodes.append((column, float(threshold), low, high))
    return tuple(nodes)


def _is_name(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME_CHARS


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ProtocolError(f"a latency prior's {what} cannot be so", "prior")
