"""One witness for the tests of counting, and what they ask the kernel about it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.jail.kernel import MACHINE
from runvisor.actors.jail.unified import unified_mount
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.actors.witness.counting import Witnessing
from runvisor.actors.witness.witness import Witness
from tests.actors.witness.processes import reading

POOL = PoolSize(minimum=2, maximum=4)


def missing() -> str:
    """Say why nothing can be counted here, or nothing."""
    if MACHINE != "x86_64":
        return "the programs are for x86-64"
    if unified_mount() is None:
        return "there is no cgroup v2 hierarchy"
    probe = probe_ebpf()
    return "" if probe.available else probe.detail


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, and leave it out where nothing can be counted."""
    here = [item for item in items if "tests/actors/witness/" in str(item.path)]
    reason = missing() if here else ""
    for item in here:
        item.add_marker(pytest.mark.kernel)
        item.add_marker(pytest.mark.root)
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="package")
def witness() -> Iterator[Witness]:
    made = Witness()
    made.start()
    yield made
    made.close()


@pytest.fixture(scope="package")
def python(witness: Witness) -> Iterator[PythonRuntime]:
    runtime = PythonRuntime(POOL, "bare")
    runtime.witness = Witnessing.connect(witness.path, 16)
    runtime.start()
    yield runtime
    runtime.close()
    runtime.witness.close()


@pytest.fixture(scope="package")
def v8(witness: Witness) -> Iterator[V8Runtime]:
    runtime = V8Runtime(POOL)
    runtime.witness = Witnessing.connect(witness.path, 16)
    runtime.start()
    yield runtime
    runtime.close()
    runtime.witness.close()


@pytest.fixture
def reader() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process in a group of its own that waits in read(2), and the group's id."""
    with reading() as made:
        yield made
