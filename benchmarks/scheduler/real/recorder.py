"""Records the workload: every program on every arm that takes it, in rounds of random order.

Each round runs each program once on each of its arms, with the same size on all.
Rounds are written down as they end, so that a recording that was broken off goes
on where it stopped; broken off for good, it has as many runs of the one as of the other.
Every fifth round is an additional one, during which another process keeps a core busy.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

import msgpack

from benchmarks.measure import machine
from benchmarks.scheduler.real.arms import ARM_NAMES, RUNTIMES, eligible_arms, is_equal, run_on, timed_run
from benchmarks.scheduler.real.noise import hog
from benchmarks.scheduler.real.programs.program import Program
from benchmarks.scheduler.real.recording import Key, Recording, Run, packed
from benchmarks.scheduler.real.workload import size_order
from runvisor.actors.runtime import PoolSize
from runvisor.policies.errors import SpawnFailed
from runvisor.supervisor.actor import SupervisorOptions
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.handle import Handle

POOL: Final = PoolSize(minimum=4, maximum=8)
"""Of each runtime: the replay has as many instances."""
_HOGGED_EVERY: Final = 4
Round = tuple[bool, list[Key]]
"""Whether a core is kept busy, and what runs in which order."""


@contextmanager
def own_supervisor(**options: Any) -> Iterator[Supervisor]:
    """Start a supervisor of our own, whose audit log goes when it ends."""
    with tempfile.TemporaryDirectory() as folder:
        sizes: dict[str, PoolSize] = dict.fromkeys(RUNTIMES, POOL)
        settings = SupervisorOptions(sizes=sizes, spares=False, audit_folder=folder, **options)
        with Supervisor.start(options=settings) as supervisor:
            yield supervisor


def find_arms(handle: Handle, programs: Sequence[Program], *, seen: Callable[[str], None]) -> dict[str, list[str]]:
    """Run every program once on every arm that takes all its sizes, and compare the answers.

    Args:
        handle: Where to run them.
        programs: Which.
        seen: Told of each program that was tried.

    Raises:
        AssertionError: Two arms gave different answers.
        RunvisorError: A program failed.
    """
    found: dict[str, list[str]] = {}
    for program in programs:
        tasks = [program.task(size) for size in program.sizes]
        names = [eligible_arms(handle, task) for task in tasks]
        found[program.name] = [arm for arm in names[0] if all(arm in others for others in names)]
        for task, size in zip(tasks, program.sizes, strict=True):
            answers = {arm: run_on(handle, task, arm).unwrap() for arm in found[program.name]}
            first, *others = answers.values()
            if not all(is_equal(first, other) for other in others):
                raise AssertionError(f"{program.name} of size {size} is answered differently: {answers}")
        seen(program.name)
    return found


def rounds_of(programs: Sequence[Program], arms: Mapping[str, Sequence[str]], runs: int, seed: int) -> Iterator[Round]:
    """Return the rounds of a recording; always the same ones for the same arguments."""
    chance = random.Random(seed)
    orders = {program.name: size_order(program) for program in programs}
    done = {False: 0, True: 0}
    for number in range(runs + runs // _HOGGED_EVERY):
        hogged = number % (_HOGGED_EVERY + 1) == _HOGGED_EVERY
        keys = [(name, order[done[hogged] % len(order)], arm) for name, order in orders.items() for arm in arms[name]]
        chance.shuffle(keys)
        done[hogged] += 1
        yield hogged, keys


def record(
    programs: Sequence[Program],
    *,
    runs: int,
    seed: int,
    part: Path,
    most_s: float,
    told: Callable[[str, int, int], None],
) -> Recording:
    """Make a recording, or go on with one.

    Args:
        programs: What to run.
        runs: Rounds without noise.
        seed: Of the order.
        part: Where the rounds are written as they end; removed by the caller once the recording is saved.
        most_s: When to break off; the recording then has fewer rounds.
        told: Called with what is done, how much of it and of how much.
    """
    ends_at = time.monotonic() + most_s
    names = [program.name for program in programs]
    tasks = {(p.name, place): p.task(size) for p in programs for place, size in enumerate(p.sizes)}
    with own_supervisor() as supervisor, hog() as noise:
        handle = supervisor._handle
        _require_arms(handle)
        arms = find_arms(handle, programs, seen=lambda name: told("trying", names.index(name) + 1, len(names)))
        header = {"programs": names, "arms": arms, "runs": runs, "seed": seed}
        found = rounds_in(part, header)
        plan = list(rounds_of(programs, arms, runs, seed))
        with part.open("ab") as file:
            if not part.stat().st_size:
                file.write(packed(header))
            for number, (hogged, keys) in enumerate(plan):
                told("recording", number, len(plan))
                if number < len(found):
                    continue
                if time.monotonic() > ends_at:
                    break
                (noise.go if hogged else noise.stop)()
                found.append([timed_run(handle, tasks[key[:2]], key, hogged=hogged) for key in keys])
                file.write(packed([astuple(run) for run in found[-1]]))
                file.flush()
            told("recording", len(found), len(plan))
    about = {**machine(), **header, "rounds": len(found), "instances": POOL.maximum, "at": time.strftime("%Y-%m-%d")}
    return Recording(about, tuple(run for done in found for run in done))


def _require_arms(handle: Handle) -> None:
    """Refuse to record where an arm is missing: the choice would be easier than it is.

    Raises:
        SpawnFailed: One is; says which, and what to do.
    """
    lacking: dict[str, str] = handle.describe()["unavailable"]
    for arm in ARM_NAMES:
        if (why := lacking.get(arm) or lacking.get(arm.partition("/")[0])) is not None:
            raise SpawnFailed(f"{arm} cannot run here: {why}", "record")


def rounds_in(part: Path, header: Mapping[str, Any]) -> list[list[Run]]:
    """Return the whole rounds of a recording that was broken off, and cut off what is behind them.

    Raises:
        ValueError: It is of another workload, or of another order.
    """
    if not part.exists():
        return []
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(part.read_bytes())
    documents, whole = [], 0
    for document in unpacker:
        documents.append(document)
        whole = unpacker.tell()
    if documents and documents[0] != header:
        raise ValueError(f"{part} is of another recording; remove it to begin anew")
    with part.open("r+b") as file:
        file.truncate(whole)
    return [[Run((row[0][0], row[0][1], row[0][2]), *row[1:]) for row in rows] for rows in documents[1:]]
