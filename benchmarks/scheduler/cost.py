"""What a decision and a lesson cost: median and p99 in microseconds, by how warm the snapshot is.

Run ``python -m benchmarks.scheduler.cost``. A handle holds a snapshot for about a
second: its first decision for a family makes a row of forecasts, the others use it. Times are CPU times.
"""

from __future__ import annotations

import gc
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

from benchmarks.measure import Timing, quantile_ms, report
from runvisor.actors.runtime import Load
from runvisor.policies.permissions import Permissions
from runvisor.policies.scheduling import sketch
from runvisor.policies.scheduling.arms import Arm
from runvisor.policies.scheduling.base import Context, Ending, Outcome
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.features import FEATURES, features_of
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.selection import choose_from, field_of
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import pack, unpack

CALLS: Final = 4000
WARM_UP: Final = 200
FAMILIES: Final = 40
BATCH: Final = 256
BARS_US: Final = {
    "choose among 8 arms, snapshot in use": 20.0,
    "learn one outcome": 40.0,
    "family of 2 KB of code, never seen": 30.0,
}
_EIGHT: Final = tuple(Arm(f"r{index}", "v", frozenset({"python"}), frozenset({"env"})) for index in range(8))
_OTHERS: Final = tuple(Arm(f"o{index}", "v", frozenset({"lua"}), frozenset()) for index in range(4))
ARMS: Final = _EIGHT + _OTHERS
GRANT: Final = Grant("p", Trust.UNTRUSTED, Permissions(env={"LANG": "C"}))
SOURCE: Final = (
    """
import json
import math

def moving(values, width):
    total, out = 0.0, []
    for index, value in enumerate(values):
        total += value
        if index >= width:
            total -= values[index - width]
        out.append(total / min(index + 1, width))
    return out

def main(inputs):
    rows = [row for row in inputs["rows"] if row.get("price") is not None]
    prices = [float(row["price"]) for row in rows]
    smooth = moving(prices, width=int(inputs.get("width", 20)))
    worst = max(smooth) if smooth else 0.0
    spread = math.sqrt(sum((a - b) ** 2 for a, b in zip(prices, smooth)) / max(1, len(prices)))
    return json.loads(json.dumps({"worst": worst, "spread": round(spread, 6), "count": len(rows)}))

"""
    * 3
)


def features(chance: random.Random) -> tuple[float, ...]:
    return tuple([chance.random() for _ in FEATURES])


def outcomes(seed: int) -> Iterator[Outcome]:
    """Make outcomes of eight arms and many families, one every 5 ms, some of them failures."""
    chance = random.Random(seed)
    for lap in count():
        arm, family = chance.randrange(8), chance.randrange(FAMILIES)
        ending = Ending.FAILED if chance.random() < 0.003 else Ending.RAN
        service_s = chance.lognormvariate(math.log(0.002 * (1 + arm) * (1 + family % 7)), 0.4)
        yield Outcome(f"r{arm}/v", f"python:{family}", ending, service_s, 0.0, 10.0, lap / 200, False, features(chance))


def taught() -> HierarchicalScheduler:
    scheduler = HierarchicalScheduler()
    for outcome, _ in zip(outcomes(1), range(6000), strict=False):
        scheduler.update(outcome)
    return scheduler


def timed(calls: Callable[[int], Callable[[], object]], number: int = CALLS) -> list[float]:
    """Time one call after the other, in CPU time: what other processes do on this machine is left out."""
    times = []
    gc.disable()
    try:
        for lap in range(number + WARM_UP):
            call = calls(lap)
            began = time.thread_time()
            call()
            times.append(time.thread_time() - began)
    finally:
        gc.enable()
    return times[WARM_UP:]


def main() -> None:
    """Measure and report."""
    state: Any = unpack(pack(taught().to_wire()))
    chance = random.Random(2)
    held = HierarchicalScheduler.from_wire(state)
    now, loads = 40.0, {arm.runtime: Load(0, 4, 2, 0.3, 39.8) if arm in _EIGHT[:3] else Load(4, 2) for arm in _EIGHT}
    draws = [[chance.gauss(0.0, 1.0) for _ in ARMS] for _ in range(97)]
    tasks = [(f"python:{chance.randrange(FAMILIES)}", features(chance)) for _ in range(89)]

    # A handle keeps what the hard constraints leave for code that it has seen; see Placement.
    field = field_of("python", GRANT, ARMS, unavailable={"r9": "not here"})

    def decide(objective: Objective | None, scheduler: HierarchicalScheduler, lap: int) -> Callable[[], object]:
        family, numbers = tasks[lap % 89]
        drawn = draws[lap % 97]
        return lambda: choose_from(
            field,
            Context(family, GRANT.permissions.timeout_s, loads, features=numbers, objective=objective),
            scheduler,
            now,
            drawn,
        )

    def decide_first(lap: int) -> Callable[[], object]:
        held._rows.clear()  # as a new snapshot has none
        return decide(None, held, lap)

    def explain(lap: int) -> Callable[[], object]:
        decision: Any = decide(None, held, lap)()
        return lambda: (decision.explain(), decision.table())

    learning, lessons = taught(), outcomes(3)

    def learn(_: int) -> Callable[[], object]:
        lesson = next(lessons)
        return lambda: learning.update(lesson)

    def look(lap: int) -> Callable[[], object]:
        sketch._look.cache_clear()
        code = f"{SOURCE[:2040]}#{lap}"
        return lambda: family_of("python", code)

    def look_both(lap: int) -> Callable[[], object]:
        code = f"{SOURCE[:2040]}#{lap % 50}"
        return lambda: (family_of("python", code), features_of("python", code, lap))

    contexts = [(Context(family, 10.0, loads, features=numbers), _EIGHT) for family, numbers in tasks] * 3
    batch, drawn = contexts[:BATCH], (draws * 3)[:BATCH]
    times = {
        "choose among 8 arms, snapshot in use": timed(lambda lap: decide(None, held, lap)),
        "choose among 8 arms, first of a family on a snapshot": timed(decide_first),
        "learn one outcome": timed(learn),
        "choose and explain: the explanation": timed(explain, 500),
        f"choose for one of {BATCH} at once": [
            each / BATCH for each in timed(lambda _: lambda: held.select_many(batch, now, drawn), 60)
        ],
        "family of 2 KB of code, never seen": timed(look, 1000),
        "family and features of known code": timed(look_both, 1000),
        "read a snapshot": timed(lambda _: lambda: HierarchicalScheduler.from_wire(state), 50),
    }
    for text in ("mean", "slo 20ms", "cvar 0.95", "throughput", "cost r0=2 *=1"):
        objective = Objective.parse(text)
        name = f"choose among 8 arms by {text}"
        times[name] = timed(lambda lap, objective=objective: decide(objective, held, lap), 1000)  # type: ignore[misc]
    base = statistics.median(times["choose among 8 arms, snapshot in use"])
    rows = []
    for name, values in times.items():
        median, limit = statistics.median(values), BARS_US.get(name)
        bar = "" if limit is None else f"<= {limit:g} us: {'met' if median * 1e6 <= limit else 'MISSED'}"
        rows.append(Timing(name, len(values), median * 1e3, quantile_ms(values, 0.99), median / base, bar))
    packed = {name: len(pack(state["families"][name])) for name in state["families"]}
    extra = {
        "median_us": {row.name: round(row.median_ms * 1e3, 2) for row in rows},
        "fastest_us": {name: round(min(values) * 1e6, 2) for name, values in times.items()},
        "bytes_of_a_family": max(packed.values()),
        "bytes_of_the_state": len(pack(state)),
        "families": len(packed),
        "load_average_of_the_machine": os.getloadavg()[0],
    }
    report("scheduler cost", rows, "choose among 8 arms, snapshot in use", extra)


if __name__ == "__main__":
    main()
