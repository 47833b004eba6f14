"""Any module, valid or not, with any arguments to any import, gives a value or a typed error; the engine lives.

The whole suite, with its counts::

    scripts/test --slow -s tests/actors/wasm/test_fuzz.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize
from runvisor.actors.wasm.links import EngineLink
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies import errors
from runvisor.policies.permissions import KiB, MiB, Permissions
from runvisor.policies.task import Task
from tests.actors.wasm.conftest import run_on
from tests.actors.wasm.generated_modules import Generator

_SEED = 20261121
_PRINCIPAL = "fuzzer"


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[WasmRuntime]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    runtime = WasmRuntime(PoolSize(maximum=4))
    runtime.start()
    yield runtime
    runtime.close()


def modules(count: int, seed: int) -> Iterator[bytes]:
    """Yield as many modules, about half of them mutated once or more."""
    generator = Generator(Random(seed))
    for number in range(count):
        module = generator.module()
        yield module if number % 2 else generator.mutated(module)


def outcome(runtime: WasmRuntime, module: bytes) -> str:
    permissions = Permissions(timeout_s=0.02, memory_bytes=4 * MiB, output_bytes=64 * KiB, env={"A": "b"})
    try:
        error = run_on(runtime, Task(module, "wasm", None, permissions), _PRINCIPAL).error
    except errors.InvalidTask:
        return "InvalidTask"
    return "value" if error is None else type(error).__name__


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Engines that died or talked nonsense: asked for whenever that is found out, and only then."""
    found: list[object] = []
    ask = EngineLink.death

    def death(link: EngineLink) -> object:
        end = ask(link)
        found.append(end)
        return end

    monkeypatch.setattr(EngineLink, "death", death)
    return found


def check(runtime: WasmRuntime, deaths: list[object], count: int, at_least: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        counts = Counter(pool.map(lambda module: outcome(runtime, module), modules(count, _SEED)))
    executed = count - counts["GuestSyntaxError"] - counts["InvalidTask"]
    print(f"\n{count} modules, {executed} executed: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()))
    assert counts["GuestCrashed"] == 0
    assert set(counts) <= {"value", "InvalidTask", *errors.ERRORS}
    assert executed >= at_least
    assert not deaths


def test_five_hundred_modules_never_crash_the_engine(fuzzed: WasmRuntime, deaths: list[object]) -> None:
    check(fuzzed, deaths, 500, 150)


@pytest.mark.slow
def test_ten_thousand_modules_never_crash_the_engine(fuzzed: WasmRuntime, deaths: list[object]) -> None:
    check(fuzzed, deaths, 10_000, 3000)
