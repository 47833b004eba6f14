"""HumanEval: 164 programs of someone else's making, right and broken, as untrusted Python."""

from __future__ import annotations

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.humaneval import problems, score

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]


def test_there_are_164_problems() -> None:
    assert len({problem.task_id for problem in problems()}) == 164


def test_all_reference_solutions_pass(supervisor: Supervisor) -> None:
    result = score(supervisor, problems())
    assert result.failed == ()
    assert result.passed == 164


@pytest.mark.slow
def test_at_most_one_empty_body_passes(supervisor: Supervisor) -> None:
    assert score(supervisor, problems(), broken=True).passed <= 1
