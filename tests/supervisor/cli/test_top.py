"""Who looks on sees what runs, what it does, and what is not counted."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator

import pytest
import ray
from rich.console import Console

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.errors import Cancelled
from runvisor.policies.running import Running, rates
from runvisor.policies.witness import Attempt, KernelUsage
from runvisor.supervisor.cli.top_table import Snapshot, render
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.execution import Execution, Output
from tests.supervisor.cli.commands import Command, document

needs_jail = pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail)


def shown(snapshot: Snapshot) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(render(snapshot))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


def running(number: int, age_s: float, kernel: KernelUsage | None = None, label: str = "a.py") -> Running:
    return Running(f"python-{number}", "ada", "python", "native", label, "untrusted", "running", age_s, kernel)


@pytest.fixture
def endless(supervisor: Supervisor) -> Iterator[Execution]:
    has_begun = threading.Event()

    def heard(output: Output) -> None:
        has_begun.set()

    execution = supervisor.submit(
        "import os\nprint('ready', flush=True)\nwhile True: pass", "python", label="endless.py", on_output=heard
    )
    try:
        assert has_begun.wait(60)
        yield execution
    finally:
        execution.cancel()
        with contextlib.suppress(Cancelled):
            execution.result(60)


@needs_jail
@pytest.mark.root
def test_top_shows_what_runs_and_says_that_nothing_is_counted(command: Command, endless: Execution) -> None:
    status, out, _ = command("top", "--once")
    assert status == 0
    assert "endless.py" in out
    assert "kernel accounting is off" in out
    assert f"Ray at {ray.get_runtime_context().gcs_address}" in out


@needs_jail
@pytest.mark.root
def test_a_session_is_seen_between_its_cells(command: Command, supervisor: Supervisor) -> None:
    def sessions() -> list[str]:
        told = document(command("top", "--once", "--json")[1])
        return [each["state"] for each in told["executions"] if each["label"] == "notebook"]

    with supervisor.session("python", label="notebook") as session:
        assert sessions() == ["idle"]
        session.run("1")
        assert sessions() == ["idle"]
    assert sessions() == []


@needs_jail
@pytest.mark.root
def test_top_for_programs_is_one_document(command: Command, endless: Execution) -> None:
    status, out, _ = command("top", "--once", "--json")
    told = document(out)
    assert (status, told["observability"]) == (0, "off")
    (one,) = [each for each in told["executions"] if each["label"] == "endless.py"]
    assert one["state"] == "running"
    assert one["age_s"] > 0
    assert one["kernel"] is None
    assert one["rates"] is None
    assert told["pools"]["python"]["busy"] >= 1
    assert told["address"] == ray.get_runtime_context().gcs_address


@needs_jail
@pytest.mark.root
def test_what_has_ended_is_not_shown(command: Command, supervisor: Supervisor) -> None:
    supervisor.run("1", "python", label="short.py")
    assert "short.py" not in command("top", "--once")[1]


@needs_jail
@pytest.mark.root
def test_counting_is_refused_by_a_supervisor_that_was_started_without(command: Command) -> None:
    status, _, err = command("run", __file__, "--observability", "kernel")
    assert status == 2
    assert "counts nothing in the kernel" in err


def test_the_busiest_come_first_and_attempts_are_seen() -> None:
    calm = KernelUsage(100, 0.1, 1, 10, 20)
    busy = KernelUsage(5000, 1.5, 9, 4096, 8192, (), (Attempt("clone", "EPERM", 3),))
    rows = tuple(
        (each, rates(each, None)) for each in (running(1, 2.0, calm, "calm.py"), running(2, 2.0, busy, "busy.py"))
    )
    text = shown(Snapshot(counts=True, rows=rows, uncounted={"wasm": "not counted: its executions share processes"}))
    lines = text.splitlines()
    (busy_line,) = [line for line in lines if "busy.py" in line]
    (calm_line,) = [line for line in lines if "calm.py" in line]
    assert lines.index(busy_line) < lines.index(calm_line)
    assert busy_line.split()[-5:] == ["75", "2,500", "2,048", "4,096", "3"]
    assert "wasm: not counted: its executions share processes" in text
    assert "accounting is off" not in text


def test_a_label_cannot_steer_the_terminal() -> None:
    hostile = running(1, 1.0, label="\x1b[2J[red]x[/red]\n" + "y" * 500)
    text = shown(Snapshot(counts=False, rows=((hostile, None),)))
    assert "\x1b" not in text
    assert "[red]x[/red]␊" in text
    assert "y" * 50 not in text


def test_an_idle_supervisor_says_so() -> None:
    assert "nothing runs" in shown(Snapshot(counts=True))
