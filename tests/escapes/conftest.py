"""The canaries and the ranges of the escape suite; each pool is its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies.permissions import MiB
from tests.escapes.canaries import Canaries, Sibling
from tests.escapes.range import Range

_SIZE = PoolSize(minimum=3, maximum=8)


@pytest.fixture(scope="session")
def canaries() -> Iterator[Canaries]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    # Not in pytest's own folder: each pytest that starts shuts that to others again.
    with tempfile.TemporaryDirectory(prefix="runvisor-canaries-") as folder:
        canaries = Canaries(Path(folder))
        yield canaries
        canaries.close()


@pytest.fixture(scope="session")
def python_range(canaries: Canaries) -> Iterator[Range]:
    runtime = PythonRuntime(_SIZE, "bare")
    runtime.start()
    try:
        with runtime._pool.lend() as child:
            child.limit_memory(64 * MiB)
            sibling = Sibling(child, canaries.tokens["memory"])
            shooting = Range(runtime, "native", canaries, sibling)
            yield shooting
            shooting.close()
            assert sibling.report() == []
    finally:
        runtime.close()


@pytest.fixture(scope="session")
def v8_range(canaries: Canaries) -> Iterator[Range]:
    runtime = V8Runtime(_SIZE)
    runtime.start()
    try:
        shooting = Range(runtime, "isolate", canaries, None)
        yield shooting
        shooting.close()
    finally:
        runtime.close()
