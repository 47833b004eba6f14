"""Who takes part in the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.scheduler.simulator import Selecting
from runvisor.policies.scheduling.baselines.chance import RandomScheduler
from runvisor.policies.scheduling.baselines.epsilon_greedy import EpsilonGreedyScheduler
from runvisor.policies.scheduling.baselines.least_loaded import LeastLoadedScheduler
from runvisor.policies.scheduling.baselines.linear_thompson import LinearThompsonScheduler
from runvisor.policies.scheduling.baselines.mean_variance_thompson import MeanVarianceThompsonScheduler
from runvisor.policies.scheduling.baselines.mv_lcb import MvLcbScheduler
from runvisor.policies.scheduling.baselines.preference import PreferenceScheduler
from runvisor.policies.scheduling.baselines.round_robin import RoundRobinScheduler
from runvisor.policies.scheduling.baselines.static_rules import StaticRulesScheduler
from runvisor.policies.scheduling.baselines.ucb1 import Ucb1Scheduler
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.tuning import Tuning


@dataclass(frozen=True)
class Contender:
    """A policy, by the name that tables have for it."""

    name: str
    make: Callable[[], Selecting] | None
    """None is the oracle."""
    role: str = "baseline"
    """``ours``, ``baseline``, ``oracle``, or ``ablation``: ours with something left out."""
    objective: Objective | None = None
    """What its requests ask for, if not what they are judged by."""


ORACLE: Final = Contender("oracle", None, "oracle")
OURS: Final = Contender("hmv", HierarchicalScheduler, "ours")
STATIC: Final = Contender("static-rules", StaticRulesScheduler)
BASELINES: Final = (
    Contender("random", RandomScheduler),
    Contender("round-robin", RoundRobinScheduler),
    Contender("preference", PreferenceScheduler),
    STATIC,
    Contender("least-loaded", LeastLoadedScheduler),
    Contender("epsilon-greedy", EpsilonGreedyScheduler),
    Contender("ucb1", Ucb1Scheduler),
    Contender("mv-lcb", MvLcbScheduler),
    Contender("mv-thompson", MeanVarianceThompsonScheduler),
    Contender("linear-thompson", LinearThompsonScheduler),
)
SHORT: Final = Tuning(drift_per_s=0.05, drift_reversion_s=20.0, failure_fade_s=4.0)
"""Time constants for runs of one to three minutes, from the study that came before; those that ship are for hours."""
ABLATIONS: Final = (
    Contender("hmv, short", lambda: HierarchicalScheduler(SHORT), "ablation"),
    Contender("hmv, mean only", HierarchicalScheduler, "ablation", Objective("mean")),
)
CONTENDERS: Final = (ORACLE, OURS, *ABLATIONS, *BASELINES)
HERDING: Final = (
    OURS.name,
    "static-rules",
    "least-loaded",
    "epsilon-greedy",
    "linear-thompson",
)
"""Those that are also run with many handles."""


def contender(name: str) -> Contender:
    """Return a contender by its name."""
    return next(each for each in CONTENDERS if each.name == name)
