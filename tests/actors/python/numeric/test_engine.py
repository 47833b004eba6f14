"""The engine where it runs: made before the fork, used behind seccomp and an address-space limit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.python.numeric.engine import Engine, Halted, preload
from runvisor.policies.permissions import MiB

TESTS_FOLDER = str(Path(__file__).resolve().parents[3])
SUM = "def f(n):\n    t = 0\n    for i in range(n):\n        t += i * i % 7\n    return t\n"
LISTS = "def f(n):\n    a = [0] * n\n    for i in range(n):\n        a[i] = i\n    return sum(a)\n"
jailed = pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(JailSpec("numeric", "actors.python.numeric.jailed", import_from=(TESTS_FOLDER,)))
    zygote.start()
    yield zygote
    zygote.close()


def ask(zygote: Zygote, code: str, value: str, memory_bytes: int = 64 * MiB) -> dict[str, Any]:
    child = zygote.spawn(memory_bytes=memory_bytes + 64 * MiB)
    try:
        child.channel.send({"code": code, "value": value, "memory_bytes": memory_bytes})
        answer = child.channel.receive()
        assert answer is not None
        return dict(answer)
    finally:
        child.close()


@jailed
def test_it_compiles_and_runs_in_the_jail_without_a_thread(zygote: Zygote) -> None:
    answer = ask(zygote, SUM, "f(100_000)")
    assert answer["value"] == sum(i * i % 7 for i in range(100_000))
    assert answer["report"]["calls_accelerated"] == 1
    assert answer["threads"] == 1


@jailed
def test_its_traps_are_fallbacks_in_the_jail_too(zygote: Zygote) -> None:
    answer = ask(zygote, "def f(n):\n    for i in range(5):\n        n *= n\n    return n\n", "str(f(10))")
    assert answer["value"] == str(10**32)
    assert answer["report"]["fallbacks"] == {"f: an integer beyond 64 bits": 1}


@jailed
def test_the_reserved_address_space_is_not_taken_from_the_grant(zygote: Zygote) -> None:
    answer = ask(zygote, SUM, "f(1000), len(bytes(40 << 20))")
    assert answer["value"] == [sum(i * i % 7 for i in range(1000)), 40 << 20]
    over = ask(zygote, SUM, "f(1000), len(bytes(100 << 20))")
    assert over["value"] == "MemoryError: "


@jailed
def test_every_child_begins_with_an_empty_memory(zygote: Zygote) -> None:
    assert [ask(zygote, LISTS, "f(50_000)")["value"] for _ in range(3)] == [1249975000] * 3


def test_making_it_starts_no_thread_that_a_fork_would_lose() -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = len(list(Path("/proc/self/task").iterdir()))
            Engine()
            status = 0 if len(list(Path("/proc/self/task").iterdir())) == before else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_module_that_is_not_valid_is_refused_by_name() -> None:
    engine = Engine()
    with pytest.raises(Halted, match="not a valid module"):
        engine.load("(module (func (result i32)))")
    with pytest.raises(Halted, match="no run"):
        engine.load("(module)")


def test_the_process_engine_is_made_once() -> None:
    assert preload() == ""
    assert preload() == ""


WITHOUT = """
import ast
from runvisor.actors.python.numeric import accelerate, engine
print(accelerate.preload())
names, source = {}, "def f(n):\\n    for i in range(n):\\n        n += i\\n    return n"
accelerator = accelerate.Accelerator(engine.process_engine())
exec(accelerator.compile(ast.parse(source), "<t>", names), names)
print(names["f"](5), accelerator.report.document()["functions_compiled"])
"""


def test_with_a_wasmtime_that_was_not_tested_functions_stay_as_they_are(tmp_path: Path) -> None:
    installed = tmp_path / "wasmtime-999.0.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wasmtime\nVersion: 999.0.0\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True, check=True)
    reason, ran = said.stdout.splitlines()
    assert reason.startswith("wasmtime 999.0.0 is not among the tested versions (")
    assert ran == "15 []"
