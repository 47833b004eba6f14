"""Tasks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import InvalidTask, ProtocolError
from runvisor.policies.task import MAX_CODE_BYTES, MAX_COMPONENT_BYTES, Task
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack, unpack
from tests.policies.test_permissions import permissions
from tests.policies.test_values import values

codes = (st.text(st.characters(codec="utf-8"), min_size=1) | st.binary(min_size=1)).filter(
    lambda code: bool(code.strip())
)


@given(codes, values, permissions, st.sampled_from(Trust), st.text(st.characters(codec="utf-8")))
def test_a_task_survives_the_wire(code: Any, inputs: Any, asked: Any, trust: Trust, label: str) -> None:
    task = Task(code, "python", inputs, asked, trust, label, profile=label[:64])
    assert Task.from_wire(unpack(pack(task.to_wire()))) == task


@pytest.mark.parametrize(
    "code",
    ["", "  \n", b"", b"\n", None, 5, ["x"], "x" * (MAX_CODE_BYTES + 1), "é" * (MAX_CODE_BYTES // 2 + 1), "\ud800"],
)
def test_code_that_cannot_be_code_is_refused(code: Any) -> None:
    with pytest.raises(InvalidTask):
        Task(code, "python")


def test_the_source_of_bytes_is_utf_8() -> None:
    assert Task("é".encode(), "python").source == "é"
    with pytest.raises(InvalidTask, match="byte 1"):
        _ = Task(b"x\xff", "python").source


@pytest.mark.parametrize(("language", "profile"), [("python", 7), ("python", "x" * 65), ("javascript", "bare")])
def test_a_profile_is_a_short_name_and_only_for_python(language: str, profile: Any) -> None:
    with pytest.raises(InvalidTask) as caught:
        Task("1", language, profile=profile)
    assert caught.value.where == "profile"


def test_inputs_that_cannot_cross_are_refused_with_their_place() -> None:
    with pytest.raises(InvalidTask) as caught:
        Task("x", "python", {"f": [len]}).to_wire()
    assert caught.value.where == "inputs['f'][0]"


@given(
    st.dictionaries(
        st.sampled_from(["code", "language", "inputs", "permissions", "trust", "label", "profile"]),
        st.none() | st.integers() | st.text() | st.binary() | st.just({}) | st.just({"x": 1}) | st.just([]),
    )
    | st.none()
    | st.lists(st.integers())
)
def test_hostile_wire_data_raises_protocol_error_and_nothing_else(data: Any) -> None:
    try:
        Task.from_wire(data)
    except ProtocolError:
        return
    assert data["permissions"] == {}


def test_a_component_may_be_larger_than_a_text() -> None:
    assert Task(b"x" * MAX_COMPONENT_BYTES, "component").language == "component"
    with pytest.raises(InvalidTask, match="larger than"):
        Task(b"x" * (MAX_COMPONENT_BYTES + 1), "component")
    with pytest.raises(InvalidTask, match="larger than"):
        Task(b"x" * (MAX_CODE_BYTES + 1), "wasm")
