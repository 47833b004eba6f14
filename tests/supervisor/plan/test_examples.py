"""The example plans parse, decompose and run wherever this process can stand in for their runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runvisor.policies.records import parse_program
from runvisor.policies.trust import Trust
from runvisor.supervisor.plan.decompose import decompose
from runvisor.supervisor.plan.manager import Manager
from runvisor.supervisor.plan.markdown import parse_plan
from runvisor.supervisor.plan.model import Plan
from tests.supervisor.plan.stub import RecordingExecutor, run_python

PLANS = Path(__file__).parents[3] / "examples" / "plans"
RUNTIME_OF = {"python": "python", "javascript": "v8", "wat": "wasm", "c": "wasm", "c-record": "ebpf"}


def load(name: str) -> Plan:
    return parse_plan((PLANS / name).read_text())


@pytest.fixture(params=sorted(path.name for path in PLANS.glob("*.md")))
def plan(request: pytest.FixtureRequest) -> Plan:
    return load(request.param)


def test_the_plans_are_there() -> None:
    assert {path.name for path in PLANS.glob("*.md")} >= {"sensor-anomalies.md", "wine-report.md"}


def test_a_plan_decomposes_and_ends_in_its_report(plan: Plan) -> None:
    graph = decompose(plan)
    assert graph.order[-1] == "report"
    assert len(graph.steps) >= 7
    assert any(step.for_each is not None for step in plan.steps)
    assert all(step.title for step in plan.steps)
    assert not any(step.has_outside_effects for step in plan.steps)


def test_only_record_filters_claim_trust(plan: Plan) -> None:
    claims = {step.language for step in plan.steps if step.trust > Trust.UNTRUSTED}
    assert claims <= {"c-record"}


def test_together_the_plans_use_all_four_runtimes() -> None:
    languages = {step.language for name in PLANS.glob("*.md") for step in load(name.name).steps}
    assert {RUNTIME_OF[language] for language in languages} == {"python", "v8", "wasm", "ebpf"}
    sensors = {RUNTIME_OF[step.language] for step in load("sensor-anomalies.md").steps}
    assert sensors == {"python", "v8", "wasm", "ebpf"}


def test_the_record_filters_are_programs_for_the_records_they_get() -> None:
    plan = load("sensor-anomalies.md")
    only = Plan("readings", (plan["readings"],))
    log = Manager(RecordingExecutor(run_python)).run(only)["readings"].value["log"]
    assert log["records"].dtype == np.dtype([("scan", "<u4"), ("sensor", "<u4"), ("value", "<u4")])
    for name in ("jumps", "sticking"):
        code = plan[name].code
        assert isinstance(code, str)
        program = parse_program(code, log["records"].dtype)
        assert len(program.initial_state(log["state"])) == program.state_bytes > 0


def test_the_python_of_the_wine_plan_gives_what_the_later_steps_take() -> None:
    plan = load("wine-report.md")
    part = Plan("part", tuple(plan[name] for name in ("load", "profile", "parameters", "flatten")))
    values = Manager(RecordingExecutor(run_python)).run(part).unwrap()
    assert [len(item["args"]) for item in values["parameters"]] == [9] * 13
    assert len(values["flatten"]) == 2 + 178 + 178 * 13
    assert [profile["wines"] for profile in values["profile"]] == [59, 71, 48]
