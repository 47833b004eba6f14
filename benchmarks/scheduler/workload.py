"""A workload: every request of a run, with what each arm would do to it.

All luck is drawn here, before any policy chooses: policies that are compared on
one workload meet the same arrivals, the same service times and the same
failures (common random numbers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.scheduler.machine import ARMS, LANGUAGES, MOST_TAIL, pareto_moments
from benchmarks.scheduler.regimes import (
    BREAKABLE,
    BROKEN_SPAN,
    BURST_GAP_S,
    BURST_SHARE,
    MOST_BURST,
    REQUESTS,
    Disturbance,
    Regime,
)
from runvisor.policies.scheduling.arms import Arm

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_NAMES: Final = [each.arm.name for each in ARMS]
_LANGUAGE_SHARES: Final = [0.12, 0.22, 0.26, 0.24, 0.16]
_NEW_SNIPPETS: Final = 12.0
"""The k-th request of a family brings new code with probability 12 / (12 + snippets of the family)."""
_HANGS: Final = 0.5
"""Share of failures that hang until the timeout instead of failing fast."""


@dataclass(frozen=True)
class Workload:
    """Requests in the order of their arrival; arrays are (requests) or (requests, arms)."""

    regime: Regime
    seed: int
    arrivals_s: Floats
    families: tuple[str, ...]
    """Name of each request's family."""
    snippets: Integers
    """Which code: the same number is the same code."""
    eligible: Flags
    service_s: Floats
    """What it would take, without waiting, compiling and contention."""
    mean_s: Floats
    """The mean that it was drawn from."""
    std_s: Floats
    compile_s: Floats
    """Paid by the first run of a snippet on an arm."""
    failure_chance: Floats
    fails: Flags
    hangs: Flags
    """If it fails, whether only the timeout ends it."""
    timeout_s: Floats
    slo_s: Floats
    critical: Flags
    features: Floats
    """What can be seen of a request: an estimate of its work, sizes, kind."""
    broken: int = -1
    """The arm that breaks in the middle, or -1."""
    arms: tuple[Arm, ...] = tuple(each.arm for each in ARMS)
    """What the columns are."""
    pools: tuple[tuple[str, int], ...] = tuple((each.arm.name, each.workers) for each in ARMS)
    """Name, as in `Context.loads`, and workers of each pool."""
    pool_of: tuple[int, ...] = tuple(range(len(ARMS)))
    """Which pool serves each arm."""
    known_mean_s: Floats | None = None
    """What the oracle goes by, if it must not see ``mean_s``, which it is judged by."""
    known_std_s: Floats | None = None


def draw(regime: Regime, seed: int, requests: int = REQUESTS) -> Workload:
    """Draw a workload; the same one for the same arguments."""
    random = np.random.default_rng([seed, 20_28])
    count, arms = regime.families, len(ARMS)
    language = random.choice(len(LANGUAGES), count, p=_LANGUAGE_SHARES)
    kinds = random.dirichlet([0.7, 0.7, 0.7], count)
    speeds = np.array([[each.numeric, each.strings, each.allocating] for each in ARMS])
    python = np.isin(language, [3, 4])
    vectorised = (random.random(count) < 0.35) & python
    work = np.exp(random.uniform(np.log(0.03), np.log(6.0), count))
    work[language == 0] *= 0.03
    work[python] *= 0.5
    grows = random.choice([0.0, 0.5, 1.0], count)  # how work depends on the size of the input
    speed = kinds @ speeds.T
    speed[np.ix_(vectorised, _runtimes("python", "container"))] *= 0.12
    quirk = np.exp(random.normal(0.0, 0.35, (count, arms)))  # what no feature shows
    family, snippet, snippets = _arrange(random, count, requests)
    scale = np.exp(random.normal(0.0, 0.30, snippets))
    own_quirk = np.exp(random.normal(0.0, 0.12, (snippets, arms)))
    length = np.exp(random.normal(0.0, 0.5, snippets))
    size = np.exp(random.normal(0.0, 0.6, requests))
    amount = work[family] * scale[snippet] * size ** grows[family]
    overhead = np.array([each.overhead_ms for each in ARMS])
    base = (overhead + amount[:, None] * speed[family] * quirk[family] * own_quirk[snippet]) / 1e3

    noise = np.array([each.noise for each in ARMS])
    index, tail_scale = (np.array([getattr(each, name) for each in ARMS]) for name in ("tail_index", "tail_scale"))
    moments = np.array([pareto_moments(each.tail_index, each.tail_scale) for each in ARMS])
    factor, tails, failing, load = _dynamics(random, regime, requests)
    broken = -1
    if regime.breaks:
        broken = _NAMES.index(BREAKABLE[seed % len(BREAKABLE)])
        start, end = (int(place * requests) for place in BROKEN_SPAN)
        failing[start:end, broken] = 1.0 if seed // len(BREAKABLE) % 2 == 0 else 0.5
    chance = np.array([each.tail_chance for each in ARMS]) + np.outer(
        kinds[family][:, 2], [each.tail_if_allocating for each in ARMS]
    )
    chance = np.clip(chance * tails, 0.0, 0.5)
    first = 1.0 - chance + chance * moments[:, 0]
    second = (1.0 - chance + chance * moments[:, 1]) * np.exp(noise**2)

    eligible = _eligible(random, language[family], vectorised[family], requests)
    compile_s = np.array([each.compile_ms for each in ARMS]) / 1e3 * length[snippet][:, None]
    if regime.equal_means:
        usual = base * first
        same = np.exp(np.where(eligible, np.log(usual), 0.0).sum(1) / eligible.sum(1))
        base = same[:, None] / first
        compile_s[:] = 0.0
        failing[:] = ARMS[0].failure_chance

    body = np.exp(random.normal(0.0, 1.0, (requests, arms)) * noise - noise**2 / 2.0)
    in_tail = random.random((requests, arms)) < chance
    uniform = random.random((requests, arms))
    pareto = tail_scale * (1.0 - uniform * (1.0 - (tail_scale / MOST_TAIL) ** index)) ** (-1.0 / index)
    service = base * factor * np.where(in_tail, body * pareto, body)
    calm = np.where(eligible, base * first, np.inf).min(1)
    slo = np.maximum(calm * random.choice([3.0, 6.0, 15.0], requests, p=[0.3, 0.4, 0.3]), 0.001)
    return Workload(
        regime=regime,
        seed=seed,
        arrivals_s=arrivals(random, regime.rate_per_s * load),
        families=tuple(f"{LANGUAGES[language[each]]}:{each}" for each in family),
        snippets=snippet,
        eligible=eligible,
        service_s=service,
        mean_s=base * factor * first,
        std_s=base * factor * np.sqrt(second - first**2),
        compile_s=compile_s,
        failure_chance=failing,
        fails=random.random((requests, arms)) < failing,
        hangs=random.random((requests, arms)) < _HANGS,
        timeout_s=np.maximum(slo * 8.0, 0.050),
        slo_s=slo,
        critical=random.random(requests) < 0.3,
        features=_features(
            random, amount=work[family] * scale[snippet], snippet=snippet, size=size, grows=grows[family],
            kinds=kinds[family], vectorised=vectorised[family], length=length[snippet], language=language[family],
        ),
        broken=broken,
    )  # fmt: skip


def _runtimes(*runtimes: str) -> Flags:
    """Return which arms are of some runtimes."""
    return np.array([name.partition("/")[0] in runtimes for name in _NAMES])


def _arrange(random: np.random.Generator, families: int, requests: int) -> tuple[Integers, Integers, int]:
    """Draw each request's family, by Zipf's law, and its code; new code keeps arriving."""
    weights = random.permutation(1.0 / np.arange(1, families + 1) ** 0.8)
    family = random.choice(families, requests, p=weights / weights.sum())
    known: list[list[int]] = [[] for _ in range(families)]
    snippet = np.zeros(requests, np.int64)
    total = 0
    for place, each in enumerate(family):
        own = known[each]
        if random.random() < _NEW_SNIPPETS / (_NEW_SNIPPETS + len(own)):
            own.append(total)
            total += 1
            snippet[place] = own[-1]
        else:
            snippet[place] = own[int(random.integers(len(own)))]
    return family, snippet, total


def _dynamics(random: np.random.Generator, regime: Regime, requests: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the factors on service times and on the chance of a tail, the chances of failing and the load."""
    arms = len(ARMS)
    place = np.arange(requests) / requests
    steps = random.normal(0.0, regime.walk / np.sqrt(requests), (requests, arms))
    factor, tails = np.exp(np.cumsum(steps, 0)), np.ones((requests, arms))
    failing = np.tile([each.failure_chance for each in ARMS], (requests, 1))
    load = np.ones(requests)
    for each in regime.disturbances:
        _disturb(each, place, factor, tails, failing, load)
    return factor, tails, failing, load


def _disturb(each: Disturbance, place: Floats, factor: Floats, tails: Floats, failing: Floats, load: Floats) -> None:
    within = (place >= each.start) & (place < each.end)
    columns = np.array([name in each.arms for name in _NAMES])
    here = np.ix_(within, columns)
    if each.kind == "load":
        load[within] *= each.factor
    elif each.kind == "slower":
        factor[here] *= each.factor
    elif each.kind == "tails":
        tails[here] *= each.factor
    elif each.kind == "fails":
        failing[here] = each.factor
    else:
        grown = np.clip((place - each.start) / (each.end - each.start), 0.0, 1.0)
        factor[:, columns] *= (1.0 + (each.factor - 1.0) * grown)[:, None]


def arrivals(random: np.random.Generator, rates_per_s: Floats) -> Floats:
    """Draw arrivals: a Poisson process of single requests and bursts, with the rate asked for."""
    requests = len(rates_per_s)
    mean_size = 1.0 + BURST_SHARE * ((2 + MOST_BURST) / 2.0 - 1.0)
    arrivals = np.empty(requests)
    now, place = 0.0, 0
    while place < requests:
        now += float(random.exponential(mean_size / rates_per_s[place]))
        size = int(random.integers(2, MOST_BURST + 1)) if random.random() < BURST_SHARE else 1
        size = min(size, requests - place)
        arrivals[place : place + size] = now + np.arange(size) * BURST_GAP_S
        place += size
    return np.sort(arrivals)


def _eligible(random: np.random.Generator, language: Integers, vectorised: Flags, requests: int) -> Flags:
    """Hard constraints: the language, what numpy needs, isolation for the trust; a container takes everything."""
    runs = np.array([[name in each.arm.languages for each in ARMS] for name in LANGUAGES])
    able = runs[language]
    able[np.ix_(vectorised, _runtimes("wasm"))] = False
    needed = np.where(random.random(requests) < 0.5, 2, 1)
    needed[random.random(requests) < 0.05] = 3
    able &= np.array([each.isolation for each in ARMS])[None, :] >= needed[:, None]
    able[:, _runtimes("container")] = True
    return able


def _features(random: np.random.Generator, **known: Any) -> Floats:
    """Return what a look at the code shows: rough where it must be rough."""
    snippet, size, snippets = known["snippet"], np.log(known["size"]), int(known["snippet"].max()) + 1
    amount = np.log(known["amount"]) + random.normal(0.0, 0.5, snippets)[snippet]
    kinds = known["kinds"] + random.normal(0.0, 0.1, (snippets, 3))[snippet]
    columns = [amount, size * known["grows"], size, *kinds.T, known["vectorised"], np.log(known["length"])]
    columns += [known["language"] == place for place in range(1, len(LANGUAGES))]
    return np.column_stack(columns).astype(np.float64)
