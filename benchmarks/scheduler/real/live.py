"""Live runs: a real supervisor under an open-loop load, disturbed while it runs.

Requests arrive by Poisson's law with bursts, whether earlier ones are answered
or not; a latency counts from when its request was due. They are dealt in turn
to 1, 4 or 16 handles, each with a snapshot and loads of its own. Meanwhile a
core is kept busy, then everything below one pool is stopped for two thirds of
the time, and last everything below one pool is killed again and again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import ray

from benchmarks.scheduler.real import noise
from benchmarks.scheduler.real.arms import eligible_arms, run_on
from benchmarks.scheduler.real.recorder import own_supervisor
from benchmarks.scheduler.real.workload import PROGRAMS, size_order
from benchmarks.scheduler.workload import arrivals
from runvisor.policies.errors import RunvisorError
from runvisor.policies.scheduling.base import Selector
from runvisor.policies.scheduling.baselines.least_loaded import LeastLoadedScheduler
from runvisor.policies.scheduling.baselines.preference import PreferenceScheduler
from runvisor.policies.scheduling.snapshot import Snapshot
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.handle import Handle

HANDLES: Final = (1, 4, 16)
PHASES: Final = ("calm", "core kept busy", "calm again", "slowed runtime", "calm once more", "broken arm")
SLOWED: Final = "python"
BROKEN: Final = "v8"
BROKEN_SERVES: Final = "javascript"
LEARNED: Final = "learned"
"""The supervisor's own policy, through snapshots; the others sit in the handles and learn nothing."""
POLICIES: Final[dict[str, Callable[[], Selector] | None]] = {
    LEARNED: None,
    "static: preference": PreferenceScheduler,
    "least loaded": LeastLoadedScheduler,
}
_CALLERS: Final = 64
_LAST_EPOCH: Final = 2**62
_WATCHED_EVERY_S: Final = 0.1
_LARGEST: Final = 2
"""Sizes that are asked for: the largest would need a machine with more cores to come often."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One request of a live run."""

    due_s: float
    """When it was due, from the beginning of the run."""
    latency_s: float
    """From then to its answer."""
    program: str
    size: int
    arm: str
    """Where it ran, or was to run; empty if that is not known."""
    failed: bool
    handle: int


@dataclass(frozen=True)
class LiveRun:
    """One run: what was sent, and how long the queues were."""

    policy: str
    handles: int
    phase_s: float
    sent: tuple[Sent, ...]
    queues: tuple[tuple[float, str, int, int], ...]
    """(seconds from the beginning, runtime, instances busy, callers waiting)."""

    def phase(self, name: str) -> list[Sent]:
        """Return what was due in a phase."""
        number = PHASES.index(name)
        return [each for each in self.sent if int(each.due_s / self.phase_s) == number]


def run_live(
    policy: str, *, handles: int, phase_s: float, rate_per_s: float, seed: int, told: Callable[[str], None]
) -> LiveRun:
    """Run one policy with so many handles through all phases.

    Args:
        policy: One of `POLICIES`.
        handles: Clients.
        phase_s: How long each phase lasts.
        rate_per_s: Requests a second.
        seed: Of the requests.
        told: Called with each phase as it begins.
    """
    plan = _plan(rate_per_s, phase_s * len(PHASES), seed)
    with own_supervisor() as supervisor, ExitStack() as stack:
        _warm(supervisor._handle)
        clients = [_client(supervisor, policy, stack) for _ in range(handles)]
        pids = {pool["runtime"]: pool["active"]["pid"] for pool in supervisor._handle.describe()["pools"]}
        began = time.monotonic() + 0.1
        queues: list[tuple[float, str, int, int]] = []
        with _watching(supervisor, began, queues), _disturbed(began, phase_s, pids, told):
            sent = _send_all(plan, clients, began)
    return LiveRun(policy, handles, phase_s, tuple(sent), tuple(queues))


def _plan(rate_per_s: float, seconds: float, seed: int) -> list[tuple[float, str, int]]:
    """Draw what is asked for when; the same for all policies of a seed."""
    chance = np.random.default_rng([seed, 20_31])
    due = arrivals(chance, np.full(int(rate_per_s * seconds * 1.5) + 50, rate_per_s))
    order = random.Random(seed)
    names = list(PROGRAMS)
    plan = []
    for at in due[due < seconds].tolist():
        name = order.choice(names)
        size = order.choice(size_order(PROGRAMS[name]))
        plan.append((at, name, min(size, _LARGEST - 1)))
    return plan


def _warm(handle: Handle) -> None:
    """Start every pool, and have everything compiled that is compiled once."""
    known: set[str] = set()
    for program in PROGRAMS.values():
        if program.language == "c-record" or program.family not in known:
            known.add(program.family)
            task = program.task(program.sizes[0])
            for arm in eligible_arms(handle, task):
                run_on(handle, task, arm)


def _client(supervisor: Supervisor, policy: str, stack: ExitStack) -> Handle:
    handle = Handle(supervisor._handle.supervisor, "load", Trust.VERIFIED)
    stack.callback(handle.close)
    make = POLICIES[policy]
    if make is not None:
        # Of an epoch that supersedes all that the supervisor publishes.
        handle._placement._snapshot = Snapshot(_LAST_EPOCH, 0, make())
    return handle


def _send_all(plan: Sequence[tuple[float, str, int]], clients: Sequence[Handle], began: float) -> list[Sent]:
    tasks: dict[tuple[str, int], Task] = {}
    for _, name, size in plan:
        if (name, size) not in tasks:
            tasks[name, size] = PROGRAMS[name].task(PROGRAMS[name].sizes[size])

    def send(number: int, due_s: float, name: str, size: int) -> Sent:
        handle = number % len(clients)
        try:
            result = clients[handle].run(tasks[name, size])
            arm, failed = f"{result.runtime}/{result.variant}", result.error is not None
        except RunvisorError as error:
            arm, failed = error.where, True
        return Sent(due_s, time.monotonic() - began - due_s, name, size, arm, failed, handle)

    with ThreadPoolExecutor(_CALLERS, thread_name_prefix="load") as pool:
        futures = []
        for number, (due_s, name, size) in enumerate(plan):
            time.sleep(max(0.0, began + due_s - time.monotonic()))
            futures.append(pool.submit(send, number, due_s, name, size))
        return [future.result() for future in futures]


@contextmanager
def _watching(supervisor: Supervisor, began: float, queues: list[tuple[float, str, int, int]]) -> Iterator[None]:
    """Note how long the pools' queues are, as the pools themselves say it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_WATCHED_EVERY_S):
            answer: Any = ray.get(supervisor._handle.supervisor.running.remote())
            at = time.monotonic() - began
            for pool in answer["pools"]:
                load = pool["load"]
                queues.append((at, pool["runtime"], load.get("busy", 0), load.get("waiting", 0)))

    thread = threading.Thread(target=watch, name="queues", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _disturbed(began: float, phase_s: float, pids: dict[str, int], told: Callable[[str], None]) -> Iterator[None]:
    """Disturb the run as its phases want it, in a thread of its own."""
    over = threading.Event()

    def work() -> None:
        for number, phase in enumerate(PHASES):
            if over.wait(max(0.0, began + number * phase_s - time.monotonic())):
                return
            told(phase)
            left_s = began + (number + 1) * phase_s - time.monotonic()
            with ExitStack() as stack:
                if phase == "core kept busy":
                    stack.enter_context(noise.hog()).go()
                elif phase == "slowed runtime":
                    stack.enter_context(noise.slowed(pids[SLOWED]))
                elif phase == "broken arm":
                    stack.enter_context(noise.failing(pids[BROKEN]))
                over.wait(left_s)

    thread = threading.Thread(target=work, name="noise", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
