"""Requests to observe, and tables: on paper, in notebooks, in numpy and on the wire."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import ConfigError, ProtocolError
from runvisor.policies.observations import Column, ObservationRequest, ObservedTable, shown

COLUMNS = (Column("path", "text"), Column("descriptor", "id"), Column("size", "bytes"), Column("took", "seconds"))
TABLE = ObservedTable("io", COLUMNS, (("/etc", 3, 10, 0.5), ("<b>", -1, 2**40, 0.0)), 42, 2.0, "target", 7)


def test_a_request_comes_back_as_it_was() -> None:
    asked = ObservationRequest("io", 42, 2.5, follow=False)
    assert ObservationRequest.from_wire(asked.to_wire()) == asked


@pytest.mark.parametrize(
    "changes",
    [
        {"what": "sockets"},
        {"pid": 0},
        {"pid": -5},
        {"pid": 1 << 40},
        {"pid": 2.0},
        {"duration_s": 0},
        {"duration_s": 1e9},
        {"duration_s": "5"},
        {"follow": 1},
    ],
)
def test_what_cannot_be_observed_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ObservationRequest(**{"what": "io", "pid": 42, "duration_s": 1.0, **changes})


def test_a_program_is_asked_for_beside_its_text() -> None:
    asked = ObservationRequest("program", 42, 2.5, program="text")
    assert ObservationRequest.from_wire(asked.to_wire()) == asked
    assert "program" not in ObservationRequest("io", 42, 2.5).to_wire()


@pytest.mark.parametrize(
    "changes", [{"what": "program"}, {"program": "text"}, {"what": "program", "program": "x" * 65537}]
)
def test_a_program_and_what_is_built_in_exclude_each_other(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ObservationRequest(**{"what": "io", "pid": 42, "duration_s": 1.0, **changes})


def test_a_table_is_rows_dicts_columns_and_an_array() -> None:
    assert len(TABLE) == 2
    assert next(iter(TABLE)) == {"path": "/etc", "descriptor": 3, "size": 10, "took": 0.5}
    assert TABLE.column("descriptor") == [3, -1]
    array = TABLE.to_numpy()
    assert array.dtype.names == ("path", "descriptor", "size", "took")
    assert array["size"].sum() == 10 + 2**40
    assert array["path"].tolist() == ["/etc", "<b>"]
    with pytest.raises(KeyError):
        TABLE.column("nothing")


def test_an_empty_table_is_one_too() -> None:
    empty = ObservedTable("io", COLUMNS, (), 42, 2.0)
    assert (empty.to_dicts(), empty.bars(), len(empty.to_numpy())) == ([], [], 0)
    assert empty.to_numpy().dtype["size"] == np.dtype("<i8")
    assert ObservedTable.from_wire(empty.to_wire()) == empty


def test_a_notebook_shows_hostile_names_as_text() -> None:
    page = TABLE._repr_html_()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "1.0 TiB" in page


def test_a_document_is_json() -> None:
    document = json.loads(json.dumps(TABLE.to_document()))
    assert (document["pid"], document["ended"], document["lost"]) == (42, "target", 7)
    assert document["rows"][0]["path"] == "/etc"


def test_bars_show_times_before_bytes_before_counts() -> None:
    assert (TABLE.bar_name, TABLE.bars()[0]) == ("took", ("/etc 3", 0.5))
    sizes = ObservedTable("io", COLUMNS[:3], (("/etc", 3, 10),), 42, 2.0)
    assert (sizes.bar_name, sizes.bar_kind) == ("size", "bytes")


def test_a_histogram_has_a_bar_for_each_bucket() -> None:
    columns = (Column("from_s", "seconds"), Column("below_s", "seconds"), Column("waits", "count"))
    table = ObservedTable("sched", columns, ((1e-6, 2e-6, 5),), 42, 2.0)
    assert table.is_histogram
    assert (table.bars(), table.bar_name) == ([("1 us to 2 us", 5.0)], "waits")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("what", 5),
        ("columns", [["a", "colour"]]),
        ("columns", 5),
        ("rows", [["short"]]),
        ("rows", [["/etc", "3", 10, 0.5]]),
        ("rows", [["/etc", 2**64, 10, 0.5]]),
        ("rows", [["/etc", 3, float("nan"), 0.5]]),
        ("rows", [["x" * 5000, 3, 10, 0.5]]),
        ("ended", "never"),
        ("ended", []),
        ("lost", None),
    ],
)
def test_a_table_that_is_none_is_refused(path: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        ObservedTable.from_wire({**TABLE.to_wire(), path: value})


@given(st.none() | st.integers() | st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.integers()))
def test_noise_is_no_table(noise: object) -> None:
    with pytest.raises(ProtocolError):
        ObservedTable.from_wire(noise)
    with pytest.raises(ProtocolError):
        ObservationRequest.from_wire(noise)


@given(st.integers(0, 2**63 - 1) | st.floats(0, 1e18))
def test_any_number_can_be_shown(number: float) -> None:
    for kind in ("id", "count", "bytes", "seconds"):
        assert shown(number, kind)
