"""The public test suite of WASI preview 1, if it is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.conformance.wasi import modules, verdicts

SUITE = os.environ.get("RUNVISOR_WASI_TESTSUITE", "")


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.timeout(600)
@pytest.mark.skipif(not SUITE, reason="RUNVISOR_WASI_TESTSUITE names no checkout: see benchmarks/conformance/README.md")
def test_every_module_of_the_suite_passes() -> None:
    found = list(verdicts(Path(SUITE)))
    assert len(found) == len(modules(Path(SUITE))) >= 72
    assert [verdict for verdict in found if verdict.outcome != "passed"] == []
