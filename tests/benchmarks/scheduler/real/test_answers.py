"""Programs of the workload on real arms: the same answers everywhere, or nothing could be compared."""

from __future__ import annotations

import pytest

from benchmarks.scheduler.real.programs.program import Program
from benchmarks.scheduler.real.recorder import find_arms
from benchmarks.scheduler.real.workload import PROGRAMS
from runvisor.actors.jail.probe import probe_jail
from runvisor.supervisor.client import Supervisor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
FEW = ("parse a log", "smooth", "js json")


@pytest.mark.parametrize("program", [PROGRAMS[name] for name in FEW], ids=lambda program: program.name)
def test_every_arm_gives_the_same_answer(supervisor: Supervisor, program: Program) -> None:
    short = Program(program.name, program.family, program.language, program.source, program.sizes[:2], program.inputs)
    seen: list[str] = []
    found = find_arms(supervisor._handle, [short], seen=seen.append)
    assert seen == [program.name]
    assert found[program.name]
