"""The example tool: the same functions in two languages."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.actors.wasm.conftest import Run

pytestmark = pytest.mark.root

TOOLS = Path(__file__).parents[4] / "examples" / "tools"


@pytest.fixture(scope="module")
def by_hand() -> str:
    return (TOOLS / "shapes" / "shapes.wat").read_text()


@pytest.fixture(scope="module")
def in_python(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    if importlib.util.find_spec("componentize_py") is None:
        pytest.skip("pip install 'runvisor[images]'")
    made = tmp_path_factory.mktemp("tool") / "shapes.wasm"
    runpy.run_path(str(TOOLS / "build.py"))["build"](made)
    return made.read_bytes()


def corners(*points: tuple[float, float]) -> dict[str, Any]:
    return {"outline": [{"x": x, "y": y} for x, y in points]}


SQUARE = corners((0, 0), (1, 0), (1, 1), (0, 1))
MEASURED = [
    (SQUARE, {"ok": {"corners": 4, "area": 1.0, "center": {"x": 0.5, "y": 0.5}}}),
    (corners((0, 0), (1, 1)), {"error": "too-few-points"}),
    (corners((0, 0), (1, 1), (2, 2)), {"error": "flat"}),
]


def test_the_tool_by_hand_measures(component: Run, by_hand: str) -> None:
    for arguments, value in MEASURED:
        assert component(by_hand, {"function": "measure", "arguments": arguments}).unwrap() == value


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tool_in_python_measures_alike_and_has_the_same_types(
    component: Run, by_hand: str, in_python: bytes
) -> None:
    for arguments, value in MEASURED:
        assert component(in_python, {"function": "measure", "arguments": arguments}).unwrap() == value
    tools = [component(code, {"describe": True}).unwrap()["tools"] for code in (by_hand, in_python)]
    first, second = ({tool["name"]: tool for tool in found}["measure"] for found in tools)
    assert first == second
