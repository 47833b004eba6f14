"""Plans and steps refuse to exist when they are wrong, and say which step and line."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.policies.errors import CapabilityDenied, InvalidPlan, TrustViolation
from runvisor.policies.permissions import Filesystem, Network, Permissions
from runvisor.policies.trust import Trust
from runvisor.supervisor.plan.model import MAX_STEPS, Plan, Step
from runvisor.supervisor.plan.references import Reference


def step(**changes: Any) -> Step:
    return Step(**{"id": "a", "code": "1", "language": "python", "line": 12, **changes})


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"id": ""}, "not a step id"),
        ({"id": "2fast"}, "not a step id"),
        ({"id": "a b"}, "not a step id"),
        ({"id": "a\n"}, "not a step id"),
        ({"id": "x" * 65}, "not a step id"),
        ({"id": "item"}, "cannot be a step's id"),
        ({"id": "index"}, "cannot be a step's id"),
        ({"code": "  \n"}, "no code"),
        ({"code": None}, "no code"),
        ({"code": "x" * (16 * 1024 * 1024 + 1)}, "larger"),
        ({"language": "cobol"}, "not a language"),
        ({"needs": "load"}, "not a list"),
        ({"retries": -1}, "retries"),
        ({"retries": 11}, "retries"),
        ({"retries": True}, "retries"),
        ({"for_each": "a b"}, "does not name a step's value"),
        ({"for_each": "steps.a"}, "does not name a step's value"),
        ({"for_each": "item"}, "cannot run over 'item'"),
        ({"inputs_from": "item"}, "needs for_each"),
        ({"max_parallel": 2}, "needs for_each"),
        ({"for_each": "b", "max_parallel": 0}, "max_parallel"),
        ({"inputs": [1]}, "not a mapping"),
        ({"inputs": {1: 2}}, "not a mapping"),
        ({"inputs": {"f": len}}, "cannot leave the sandbox"),
        ({"inputs": {"x": 1}, "inputs_from": "b"}, "both"),
        ({"inputs": {"item": 1}, "for_each": "b"}, "hides"),
    ],
)
def test_a_wrong_step_is_refused_with_its_line(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        step(**changes)
    assert part in str(caught.value)
    assert caught.value.where.endswith("line 12")
    assert caught.value.details["line"] == 12


def test_references_may_be_given_as_text_and_needs_are_kept_once() -> None:
    made = step(for_each="steps.b.value.rows", needs=["b", "c", "b"])
    assert made.for_each == Reference("b", ("rows",))
    assert made.needs == ("b", "c")


@pytest.mark.parametrize(
    "permissions",
    [
        Permissions(network=Network(("example.com",))),
        Permissions(filesystem=Filesystem(write=("out/*",))),
        Permissions(tools=("search",)),
    ],
)
def test_network_writes_and_tools_are_effects_that_outlive_the_sandbox(permissions: Permissions) -> None:
    assert step(permissions=permissions).has_outside_effects
    assert not step(permissions=Permissions(filesystem=Filesystem(read=("data/*",)))).has_outside_effects


def test_a_plan_has_steps_but_not_without_end() -> None:
    with pytest.raises(InvalidPlan, match="no steps"):
        Plan("p", ())
    with pytest.raises(InvalidPlan, match="more than"):
        Plan("p", tuple(step(id=f"s{number}") for number in range(MAX_STEPS + 1)))


def test_a_step_wider_than_its_plan_does_not_exist() -> None:
    with pytest.raises(CapabilityDenied) as denied:
        Plan("p", (step(permissions=Permissions(tools=("search",))),), permissions=Permissions())
    assert denied.value.details == {"step": "a", "line": 12, "excess": ["tools: 'search' not allowed"]}
    with pytest.raises(TrustViolation):
        Plan("p", (step(trust=Trust.VERIFIED),), trust=Trust.UNTRUSTED)


def test_a_reference_finds_parts_and_says_what_is_there_instead() -> None:
    values = {"a": {"rows": [{"x": 1}]}}
    assert Reference.parse("a.rows.0.x").resolve(values) == 1
    assert str(Reference.parse("a.rows.0.x")) == "steps.a.value.rows.0.x"
    for text, part in (("a.cols", "it has rows"), ("a.rows.1", "a list of 1"), ("a.rows.0.x.y", "type int")):
        with pytest.raises(InvalidPlan) as caught:
            Reference.parse(text).resolve(values)
        assert part in str(caught.value)
