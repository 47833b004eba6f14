"""Nothing grows: descriptors, processes, cgroups and memory after a thousand executions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runvisor.actors.jail.cgroups import find_hierarchy
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize
from runvisor.actors.v8.runtime import V8Runtime
from tests.actors.executing import execute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
EXECUTIONS = 1000
SIZE = PoolSize(minimum=2, maximum=4)


def footprint(runtime: JailedRuntime) -> dict[str, int]:
    """Count what a leak would show in."""
    process = runtime._zygote._process
    assert process is not None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pool = next(find_hierarchy().parent.glob(f"runvisor-{os.getpid()}-*-{runtime.name}*"))
    return {
        "own descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "zygote descriptors": len(list(Path(f"/proc/{process.pid}/fd").iterdir())),
        "children": len(children),
        "cgroups": sum(entry.is_dir() for entry in pool.iterdir()),
        "zygote MiB": int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 >> 20,
    }


@pytest.mark.parametrize(
    ("make", "language", "variant"),
    [(lambda: PythonRuntime(SIZE, "bare"), "python", "native"), (lambda: V8Runtime(SIZE), "javascript", "isolate")],
    ids=["python", "v8"],
)
def test_a_thousand_executions_leave_nothing(make: Callable[[], JailedRuntime], language: str, variant: str) -> None:
    runtime = make()
    runtime.start()
    try:
        for _ in range(20):
            assert execute(runtime, "1 + 1", language, variant).value == 2
        before = footprint(runtime)
        for number in range(EXECUTIONS):
            result = execute(runtime, f"{number} + 1", language, variant)
            assert result.value == number + 1, result.error
        after = footprint(runtime)
    finally:
        runtime.close()
    slack = {"own descriptors": 24, "zygote descriptors": 12, "children": 6, "cgroups": 6, "zygote MiB": 8}
    assert {name: after[name] - before[name] for name in after if after[name] - before[name] > slack[name]} == {}
