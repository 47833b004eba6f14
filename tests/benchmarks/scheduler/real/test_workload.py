"""The workload: that it can say anything of a choice."""

from __future__ import annotations

import pytest

from benchmarks.scheduler.real.programs.program import Program
from benchmarks.scheduler.real.workload import HELD_OUT, PROGRAMS, families, size_order
from runvisor.policies.scheduling.arms import ARMS, split_eligible
from runvisor.policies.trust import Grant
from runvisor.supervisor.fitness import fitness

each_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=lambda program: program.name)


def test_there_are_sixty_programs_and_families_on_both_sides() -> None:
    assert len(PROGRAMS) >= 60
    assert families(PROGRAMS.values()) > HELD_OUT
    held_out = [program for program in PROGRAMS.values() if program.family in HELD_OUT]
    assert {program.language for program in held_out} == {program.language for program in PROGRAMS.values()}


@each_program
def test_a_program_may_run_on_two_arms_at_every_size(program: Program) -> None:
    for size in program.sizes:
        task = program.task(size)
        grant = Grant("tests", task.trust, task.permissions)
        unfit, _ = fitness(task, grant, ARMS, {}, {})
        eligible, _ = split_eligible(ARMS, task.language, grant, unfit)
        assert len(eligible) >= 2


@each_program
def test_every_size_of_a_program_is_asked_for(program: Program) -> None:
    assert set(size_order(program)) == set(range(len(program.sizes)))
    assert list(program.sizes) == sorted(set(program.sizes))
