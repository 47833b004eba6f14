"""Objectives: how people write them, and what is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.scheduling.objective import KINDS, Objective
from runvisor.policies.values import pack, unpack

RATES = st.dictionaries(
    st.sampled_from(["*", "python", "python:cold", "wasm/module", "wasm/module:cold", "waiting"]), st.floats(0, 1e6)
).map(lambda rates: tuple(rates.items()))
OBJECTIVES = st.one_of(
    st.sampled_from([Objective("mean"), Objective("throughput"), Objective()]),
    st.builds(lambda rho: Objective("mean+std", rho=rho), st.floats(0, 100)),
    st.builds(lambda slo_s: Objective("slo", slo_s=slo_s), st.floats(1e-6, 1e6)),
    st.builds(lambda q: Objective("cvar", q=q), st.floats(0, 1, exclude_min=True, exclude_max=True)),
    st.builds(lambda rates: Objective("cost", rates=rates), RATES),
)


@given(OBJECTIVES)
def test_what_is_written_is_read_back(objective: Objective) -> None:
    assert Objective.parse(str(objective)) == objective
    assert Objective.from_wire(unpack(pack(objective.to_wire()))) == objective
    assert objective.words


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("mean", Objective("mean")),
        ("mean+std", Objective()),
        ("Mean + 2 * std", Objective(rho=2.0)),
        ("mean + .5std", Objective(rho=0.5)),
        ("slo 100ms", Objective("slo", slo_s=0.1)),
        ("slo 2s", Objective("slo", slo_s=2.0)),
        ("cvar 0.95", Objective("cvar", q=0.95)),
        ("cost", Objective("cost")),
        ("cost v8=1 v8:cold=2", Objective("cost", rates=(("v8", 1.0), ("v8:cold", 2.0)))),
    ],
)
def test_people_write_it_in_words(text: str, objective: Objective) -> None:
    assert Objective.parse(text) == objective


@pytest.mark.parametrize(
    "text", ["", "median", "mean + 200*std", "slo", "slo 0ms", "slo 5", "cvar 1", "cvar", "cost v8", "cost V8=-1", 7]
)
def test_what_is_no_objective_is_refused_with_how_to_write_one(text: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Objective.parse(text)
    assert "cvar 0.95" in caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "median"},
        {"rho": "1"},
        {"rho": float("nan")},
        {"slo_s": 1.0},
        {"q": 0.5},
        {"rates": [["v8", 1]]},
        {"kind": "cost", "rates": [["v8", -1]]},
        {"kind": "cost", "rates": [["v8", 1], ["v8", 2]]},
        {"kind": "cost", "rates": [["v8"]]},
        {"kind": "cost", "rates": [["v 8", 1]]},
        {"kind": "cost", "rates": [[f"r{n}", 1] for n in range(65)]},
        {"rates": None},
    ],
)
def test_a_damaged_objective_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Objective.from_wire({**Objective().to_wire(), **change})


def test_every_kind_has_words() -> None:
    parameters = {"slo": {"slo_s": 1.0}, "cvar": {"q": 0.5}}
    made = [Objective(kind, **parameters.get(kind, {})) for kind in KINDS]
    assert len({objective.words for objective in made}) == len(KINDS)
