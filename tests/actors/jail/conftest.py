"""A jailed runtime whose guest is `partner`: conversations without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.runtime import PoolSize

TESTS_FOLDER = str(Path(__file__).resolve().parents[2])


@pytest.fixture(scope="session")
def partner() -> Iterator[JailedRuntime]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    spec = JailSpec("partner", "actors.jail.partner", import_from=(TESTS_FOLDER,))
    runtime = JailedRuntime("partner", spec, PoolSize(minimum=2, maximum=8))
    runtime.start()
    yield runtime
    runtime.close()
