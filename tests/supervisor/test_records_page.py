"""The examples of docs/records.md do what the page says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.wasm.compilers import ziglang
from runvisor.supervisor.client import Supervisor

PAGE = Path(__file__).resolve().parents[2] / "docs" / "records.md"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    pytest.mark.skipif(ziglang.find() is None, reason=ziglang.REMEDY),
]


def test_the_examples_of_the_page_run(supervisor: Supervisor) -> None:
    test = doctest.DocTestParser().get_doctest(PAGE.read_text(), {"sv": supervisor}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    failed, tried = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert not failed, "".join(said)
    assert tried > 15
