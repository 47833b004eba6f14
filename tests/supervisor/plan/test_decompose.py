"""The graph of a plan: said and inferred dependencies, unknown names, cycles."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import InvalidPlan
from runvisor.supervisor.plan.decompose import Dependency, Graph, decompose
from runvisor.supervisor.plan.mentions import mentioned_inputs
from runvisor.supervisor.plan.model import Plan, Step


def graph_of(*steps: Step) -> Graph:
    return decompose(Plan("p", steps))


def step(step_id: str, code: str = "1", language: str = "python", **changes: Any) -> Step:
    return Step(step_id, code, language, **changes)


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ('inputs["load"]', "python"),
        ("inputs['load']", "python"),
        ("inputs [ 'load' ]", "python"),
        ("inputs.get('load', [])", "python"),
        ("inputs.load", "javascript"),
        ("inputs?.load", "javascript"),
        ('inputs["load"].map(f)', "javascript"),
        ("inputs?.[`load`]", "javascript"),
        ("const {load, other: o} = inputs;", "javascript"),
        ("let {a,\n  load = 3} = inputs", "javascript"),
        ("function main({ load }) { return load }", "javascript"),
        ("function main(given) { return given.load }", "javascript"),
        ("def main(data):\n    return data['load']", "python"),
        ("def main(data: dict) -> int:\n    return data['load']", "python"),
        ("inputs['load']", "auto"),
        ("inputs.load", "auto"),
    ],
)
def test_code_that_mentions_a_step_depends_on_it(code: str, language: str) -> None:
    graph = graph_of(step("load"), step("use", code, language))
    assert graph.needs["use"] == (Dependency("load", "mentioned"),)
    assert graph.delivered_to("use") == ("load",)


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("# inputs['load']\n1", "python"),
        ("    # inputs['load']\n1", "python"),
        ("// inputs.load\n1", "javascript"),
        ("inputs.loaded", "javascript"),
        ("my_inputs['load']", "python"),
        ("self.inputs['load']", "python"),
        ("inputs[load]", "python"),
        ("load", "python"),
        (";; inputs.load\n(module)", "wat"),
    ],
)
def test_other_text_does_not_make_a_dependency(code: str, language: str) -> None:
    assert graph_of(step("load"), step("use", code, language)).needs["use"] == ()


def test_what_is_listed_needs_no_mention_and_is_counted_once() -> None:
    graph = graph_of(step("a"), step("b"), step("c", "inputs['a']", needs=("a", "b")))
    assert graph.needs["c"] == (Dependency("a", "needs"), Dependency("b", "needs"))
    assert graph.waits_for("c") == ("a", "b")
    assert graph.dependants["a"] == ("c",)
    assert graph.order.index("c") == 2


def test_for_each_waits_for_its_list_without_delivering_it() -> None:
    graph = graph_of(step("load"), step("each", "inputs['item']", for_each="load"))
    assert graph.needs["each"] == (Dependency("load", "for_each"),)
    assert graph.delivered_to("each") == ()
    mentioned = graph_of(step("load"), step("each", "inputs['load'][inputs['index']]", for_each="load"))
    assert mentioned.waits_for("each") == ("load",)
    assert mentioned.delivered_to("each") == ("load",)


def test_code_whose_whole_input_is_one_value_mentions_parts_of_it_not_steps() -> None:
    graph = graph_of(step("load"), step("other"), step("use", "inputs.other", "javascript", inputs_from="load"))
    assert graph.needs["use"] == (Dependency("load", "inputs"),)
    assert graph.delivered_to("use") == ()


def test_an_unknown_step_is_refused_with_line_guess_and_list() -> None:
    with pytest.raises(InvalidPlan) as caught:
        graph_of(step("load"), step("use", needs=("laod",), line=9))
    assert caught.value.where == "step use, line 9"
    assert "did you mean load?" in caught.value.remedy
    for changes in ({"for_each": "nowhere"}, {"inputs_from": "nowhere"}):
        with pytest.raises(InvalidPlan, match="'nowhere', which is not a step"):
            graph_of(step("use", **changes))


def test_a_static_input_may_not_hide_a_step() -> None:
    with pytest.raises(InvalidPlan, match="hides the value"):
        graph_of(step("load"), step("use", "inputs['load']", inputs={"load": 1}))


def test_a_cycle_is_named_step_by_step_with_lines_and_reasons() -> None:
    with pytest.raises(InvalidPlan) as caught:
        graph_of(
            step("a", "inputs['c']", line=3),
            step("b", needs=("a",), line=7),
            step("c", for_each="b", line=11),
            step("bystander"),
        )
    path = caught.value.details["cycle"]
    assert path[0] == path[-1]
    assert set(path) == {"a", "b", "c"}
    needs = {"a": "c", "b": "a", "c": "b"}
    assert all(needs[later] == earlier for later, earlier in itertools.pairwise(path))
    assert " -> ".join(path) in caught.value.what
    for part in ("step a, line 3 mentions c", "step b, line 7 needs a", "step c, line 11 runs over b"):
        assert part in caught.value.where


def test_a_step_that_needs_itself_is_refused() -> None:
    with pytest.raises(InvalidPlan, match="a waits for itself"):
        graph_of(step("a", "inputs['a']"))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=25))
def test_every_graph_is_ordered_or_refused_with_a_true_cycle(edges: list[tuple[int, int]]) -> None:
    needs = {number: {f"s{to}" for origin, to in edges if origin == number} for number in range(10)}
    steps = [step(f"s{number}", needs=tuple(sorted(needs[number]))) for number in range(10)]
    try:
        graph = graph_of(*steps)
    except InvalidPlan as error:
        path = error.details["cycle"]
        assert path[0] == path[-1]
        for later, earlier in itertools.pairwise(path):
            assert earlier in needs[int(later[1:])]
        return
    place = {step_id: number for number, step_id in enumerate(graph.order)}
    assert len(place) == 10
    assert all(place[need] < place[f"s{number}"] for number, found in needs.items() for need in found)


@given(st.text(max_size=300), st.sampled_from(["python", "javascript", "auto", "c"]))
def test_wild_code_never_breaks_the_search(code: str, language: str) -> None:
    assert all(isinstance(name, str) for name in mentioned_inputs(code, language))


def test_the_search_stays_quick_on_hostile_code() -> None:
    started = time.process_time()
    mains = "".join(f"def main(a{number}):\n" for number in range(20_000))
    for hostile in ("{" * 300_000, "{}" * 99_000, "inputs" * 60_000, "inputs " * 50_000, "inputs[" * 50_000, mains):
        mentioned_inputs(hostile, "auto")
        mentioned_inputs(hostile + "inputs" + " " * 300_000, "auto")
        mentioned_inputs(("inputs" + " " * 3000) * 100, "auto")
    assert time.process_time() - started < 10
