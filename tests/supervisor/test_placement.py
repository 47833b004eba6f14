"""Where a handle's tasks go, and what their ends teach."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest

from runvisor.actors.channel.base import OnEvent
from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Load
from runvisor.policies import errors
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Usage
from runvisor.policies.scheduling.base import Ending, Outcome
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.snapshot import Learner
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.supervisor.load_view import LoadView
from runvisor.supervisor.placement import Attached, Ended, Placed, Placement
from runvisor.supervisor.request import make_task, read_objective
from tests.supervisor.test_learned import fresh

RECORDS = Task("int on_record() { return 0; }", "c-record", trust=Trust.VERIFIED)
FAMILY_RUNS = 40


class Link:
    """A pool that has been met and is never asked."""

    def __init__(self, places: int) -> None:
        self.view = LoadView(Load(idle=places), at=0.0)

    def request(self, message: Message, on_event: OnEvent | None = None, shared: Any = ()) -> Message:
        raise AssertionError("nothing is sent here")


class Links:
    """What `PoolLinks` tells a placement."""

    def __init__(self, places: int = 4, lacking: Iterable[str] = ()) -> None:
        self.links = {runtime: Link(places) for runtime in ("python", "v8", "wasm", "ebpf")}
        self.lacking = set(lacking)
        self.asked: list[str] = []

    def to(self, runtime: str) -> Any:
        self.asked.append(runtime)
        if runtime in self.lacking:
            raise errors.SpawnFailed("it does not start", runtime)
        return self.links[runtime]

    def loads(self, runtimes: Iterable[str]) -> dict[str, Load]:
        return {runtime: self.links[runtime].view.now(0.0) for runtime in runtimes}


def attached(runs: dict[str, float] | None = None, **changes: Any) -> Attached:
    """Return what a supervisor gives that has seen some arms run records, each for so long."""
    learner = Learner(fresh(), epoch=1)
    learner.learn(
        [
            Outcome(arm, family(), Ending.RAN, service_s * (1 + at % 3 / 10), 0.0, 10.0, 1e9 + at).to_wire()
            for arm, service_s in (runs or {}).items()
            for at in range(FAMILY_RUNS)
        ],
        now=2e9,
    )
    return Attached(**{**ATTACHED, "snapshot": learner.publish(), **changes})


ATTACHED = {
    "authority": b"",
    "expires_at": 0.0,
    "permissions": None,
    "unavailable": {},
    "allow_untrusted_bpf": False,
}


def family() -> str:
    return (
        placement(Links(), Attached(**ATTACHED, snapshot=Learner(fresh()).publish()))
        .place(RECORDS, "refuse")
        .context.family
    )


def placement(links: Links, given: Attached, objective: Objective | None = None) -> Placement:
    return Placement("tester", Trust.TRUSTED, links, given, objective)  # type: ignore[arg-type]


def test_a_burst_spreads_over_two_arms_that_are_about_as_fast() -> None:
    links = Links(places=4)
    place = placement(links, attached({"wasm/record": 0.010, "ebpf/record": 0.011})).place
    chosen: Counter[str] = Counter()
    with ExitStack() as burst:
        for _ in range(64):
            placed = place(RECORDS, "refuse")
            chosen[placed.decision.arm] += 1
            burst.enter_context(links.links[placed.runtime].view.sending(placed.expected_s))
    assert min(chosen["wasm/record"], chosen["ebpf/record"]) >= 16


def test_tasks_that_begin_at_once_are_spread_in_one_decision() -> None:
    links = Links(places=4)
    many = placement(links, attached({"wasm/record": 0.010, "ebpf/record": 0.011})).place_many([RECORDS] * 64, "refuse")
    chosen = Counter(placed.decision.arm for placed in many if placed is not None)
    assert chosen.total() == 64
    assert min(chosen["wasm/record"], chosen["ebpf/record"]) >= 16


def test_of_many_the_one_that_may_not_run_is_left_to_say_why_by_itself() -> None:
    too_long = make_task(RECORDS.code, "c-record", permissions={"timeout_s": 1e6}, trust="verified")[0]
    many = placement(Links(), attached()).place_many([RECORDS, too_long, RECORDS], "refuse")
    assert [placed is not None for placed in many] == [True, False, True]


def test_a_critical_task_is_never_used_to_learn() -> None:
    place = placement(Links(), attached({"wasm/record": 0.010, "ebpf/record": 0.012})).place
    task = make_task(RECORDS.code, "c-record", trust="verified", critical=True)[0]
    placed = [place(task, "refuse") for _ in range(100)]
    assert {each.decision.arm for each in placed} == {"wasm/record"}
    assert not any(each.decision.explored for each in placed)


def test_the_handles_objective_counts_where_a_task_has_none() -> None:
    place = placement(Links(), attached(), Objective.parse("mean")).place
    assert place(RECORDS, "refuse").context.objective == Objective("mean")
    task = make_task(RECORDS.code, "c-record", trust="verified", objective="slo 100ms")[0]
    assert place(task, "refuse").context.objective == Objective("slo", slo_s=0.1)


@pytest.mark.parametrize("wrong", ["fast", "slo", "cvar 2", "mean + -1*std", "", 5, ["mean"], object()])
def test_what_is_no_objective_is_refused_with_those_there_are(wrong: Any) -> None:
    with pytest.raises(errors.ConfigError) as caught:
        read_objective(wrong)
    assert "slo 100ms" in caught.value.remedy


def test_a_pool_that_does_not_start_is_struck_out_for_the_tasks_to_come() -> None:
    links = Links(lacking=["ebpf"])
    place = placement(links, attached({"ebpf/record": 0.001, "wasm/record": 1.0})).place
    for _ in range(3):
        assert place(RECORDS, "refuse").decision.arm == "wasm/record"
    assert links.asked.count("ebpf") == 1


def test_what_is_judged_once_is_judged_anew_by_other_terms() -> None:
    placer = placement(Links(), attached())
    assert placer.place(RECORDS, "refuse").context.timeout_s == 10.0
    placer.attach(attached(permissions=Permissions(timeout_s=2.0), unavailable={"ebpf": "gone"}))
    with pytest.raises(errors.CapabilityDenied):
        placer.place(RECORDS, "refuse")
    placed = placer.place(RECORDS, "narrow")
    assert (placed.context.timeout_s, placed.decision.arm) == (2.0, "wasm/record")


def test_larger_inputs_are_another_feature_of_the_same_family() -> None:
    place = placement(Links(), attached()).place
    small, large = (place(RECORDS, "refuse", input_bytes=size).context for size in (10, 10_000_000))
    assert small.family == large.family
    assert small.features != large.features


@pytest.fixture
def placed() -> Placed:
    return placement(Links(), attached()).place(RECORDS, "refuse")


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (None, Ending.RAN),
        (errors.GuestException("ValueError: no"), Ending.RAN),
        (errors.TimeLimitExceeded("10 s are over"), Ending.TIMED_OUT),
        (errors.WorkerCrashed("the pool died"), Ending.FAILED),
        (errors.SpawnFailed("no instance could be made"), Ending.FAILED),
        (errors.PoolExhausted("no instance came free"), None),
        (errors.QueueFull("256 wait"), None),
        (errors.EngineRefused("too long for the verifier"), None),
        (errors.CapabilityDenied("no"), None),
        (errors.GuestCrashed("signal 11"), None),
        (errors.MemoryLimitExceeded("256 MiB"), None),
        (errors.Cancelled("the task was called off"), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_an_end_teaches(placed: Placed, error: errors.RunvisorError | None, ending: Ending | None) -> None:
    outcome = Ended(placed, Usage(wall_s=0.02, queue_s=0.5), error, 1e9).outcome()
    assert (outcome and outcome.ending) == ending
    if outcome is not None:
        assert (outcome.family, outcome.features) == (placed.context.family, placed.context.features)


def test_a_task_that_ran_out_of_cpu_time_is_known_to_take_longer_than_it_ran_and_no_more(placed: Placed) -> None:
    outcome = Ended(placed, Usage(wall_s=0.5), errors.TimeLimitExceeded("cpu_s"), 1e9).outcome()
    assert outcome is not None
    assert outcome.timeout_s == 0.5


def test_no_change_of_the_terms_is_lost_by_another_at_the_same_time() -> None:
    place = placement(Links(), attached())
    names = [[f"{thread}-{number}" for number in range(100)] for thread in range(4)]
    together = threading.Barrier(len(names), timeout=20)

    def strike_out(mine: list[str]) -> None:
        together.wait()
        for name in mine:
            place.strike_out(name, "it does not start")

    threads = [threading.Thread(target=strike_out, args=(mine,)) for mine in names]
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual_s)
    assert place.attached.unavailable.keys() == {name for mine in names for name in mine}
