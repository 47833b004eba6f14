"""Each compiled language: the examples of the documentation, errors with their place, nothing of the host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runvisor.actors.wasm.compilers.compilers import TOOLCHAINS
from tests.actors.wasm.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),  # the first run on a machine builds the libraries
]

_PAGE = Path(__file__).parents[4] / "docs/wasm.md"
_EXAMPLES = re.findall(r"^```(c|cpp|zig|go|rust)\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
# What takes a compiler seconds, or a library minutes to be built, is left to the slow run.
_SLOW = {"zig main", "go main", "go function", "rust main"}


def _case(language: str, code: str) -> object:
    is_command = '"sum' in code.replace("\\", "")
    name = f"{language} {'main' if is_command else 'function'}"
    inputs, value = ([20, 22], {"sum": 42}) if is_command else ([40, 2], 42)
    return pytest.param(language, code, inputs, value, id=name, marks=[pytest.mark.slow] if name in _SLOW else [])


@pytest.mark.parametrize(("language", "code", "inputs", "value"), [_case(*example) for example in _EXAMPLES])
def test_the_examples_of_the_documentation_run(
    compiled: Run, language: str, code: str, inputs: list[int], value: object
) -> None:
    assert compiled(language, code, inputs).unwrap() == value


def test_the_documentation_has_two_examples_of_each_language() -> None:
    assert [language for language, _ in _EXAMPLES] == [t.language for t in TOOLCHAINS for _ in range(2)]
