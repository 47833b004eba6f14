"""``runvisor observe``: tables and charts of what hostile processes chose, and the command itself."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.policies.errors import ConfigError
from runvisor.policies.observations import Column, ObservedTable
from runvisor.supervisor.cli import main, observe
from runvisor.supervisor.cli.chart import bar_table, draw
from runvisor.supervisor.client import Supervisor
from tests.actors.ebpf.observe.known import go, known_process

HOSTILE = "\x1b[2J[red]$\\frac{"
COLUMNS = (Column("path", "text"), Column("times", "count"))
COUNT = """// {}
struct value {{ u64 times; }};
void on_event(struct event *e, struct value *v) {{ v->times++; }}
"""
TABLE = ObservedTable("files", COLUMNS, ((HOSTILE, 3), ("/etc", 1)), 42, 2.0, "target", 9)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a person sees."""
    screen = io.StringIO()
    for name in ("console", "notes"):
        monkeypatch.setattr(observe, name, Console(file=screen, width=120, force_terminal=True, color_system=None))
    return screen


def test_a_table_shows_hostile_names_as_text(screen: io.StringIO) -> None:
    observe.print_table(TABLE, 25)
    text = screen.getvalue()
    assert "␛[2J[red]$\\frac{" in text
    assert "\x1b[2J" not in text
    assert "the process has ended" in text
    assert "9 events found a full table" in text


def test_a_long_table_is_cut_and_says_so(screen: io.StringIO) -> None:
    observe.print_table(TABLE, 1)
    text = screen.getvalue()
    assert "/etc" not in text
    assert "1 more rows; --rows 0 shows all" in text


def test_a_chart_has_a_bar_for_each_row(screen: io.StringIO) -> None:
    Console(file=screen, width=120).print(bar_table(TABLE))
    first, second = screen.getvalue().splitlines()
    assert first.count("█") > second.count("█") > 0


@pytest.mark.parametrize("table", [TABLE, ObservedTable("files", COLUMNS, (), 42, 2.0)])
def test_a_picture_is_drawn_of_any_names_and_of_none(table: ObservedTable) -> None:
    pytest.importorskip("matplotlib")
    picture = draw(table)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["", "5h", "-1s", "s", "1e9s", "5 seconds"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        observe.read_duration(text)


@pytest.mark.kernel
@pytest.mark.root
@pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail)
def test_the_command_observes_and_draws(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    del supervisor  # commands attach to it
    picture = tmp_path / "chart.png"
    with known_process("sys.stdout.write('ready\\n'), sys.stdout.flush()\nwhile True: os.getppid()") as busy:
        go(busy)
        assert busy.stdout is not None
        assert busy.stdout.readline() == "ready\n"
        arguments = ["observe", "syscalls", "--pid", str(busy.pid), "--for", "1s", "--json", "--png", str(picture)]
        monkeypatch.setattr(sys, "argv", ["runvisor", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.run()
    assert not ended.value.code
    document = json.loads(capfd.readouterr().out)
    calls = {row["syscall"]: row["calls"] for row in document["rows"]}
    assert calls["getppid"] > 0
    assert (document["pid"], document["ended"]) == (busy.pid, "time")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.kernel
@pytest.mark.root
@pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail)
def test_the_command_runs_code_and_observes_it(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    del supervisor
    code = tmp_path / "code.py"
    code.write_text("import os\nfor _ in range(19): os.getppid()\n1 / 0")
    monkeypatch.setattr(sys, "argv", ["runvisor", "observe", "syscalls", "--run", str(code), "--json"])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 1
    document = json.loads(capfd.readouterr().out)
    assert {row["syscall"]: row["calls"] for row in document["rows"]}["getppid"] == 19
    assert "ZeroDivisionError" in str(document["result"]["error"])
    program = tmp_path / "count.c"
    program.write_text(COUNT.format("tracepoint: syscalls:sys_enter_getppid"))
    monkeypatch.setattr(sys, "argv", ["runvisor", "observe", "--program", str(program), "--run", str(code), "--json"])
    with pytest.raises(SystemExit):
        main.run()
    assert json.loads(capfd.readouterr().out)["rows"] == [{"times": 19}]


@pytest.mark.kernel
@pytest.mark.root
@pytest.mark.skipif(not probe_ebpf().available, reason=probe_ebpf().detail)
def test_the_command_observes_by_a_program_from_a_file(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    del supervisor
    program = tmp_path / "count.c"
    with known_process("sys.stdout.write('ready\\n'), sys.stdout.flush()\nwhile True: os.getppid()") as busy:
        go(busy)
        assert busy.stdout is not None
        assert busy.stdout.readline() == "ready\n"
        arguments = ["observe", "--program", str(program), "--pid", str(busy.pid), "--for", "500ms"]
        for place, option in (("raw_tracepoint sys_enter", []), ("uprobe libc:getppid", ["--json", "--only"])):
            program.write_text(COUNT.format(place.replace(" ", ": ", 1)))
            monkeypatch.setattr(sys, "argv", ["runvisor", *arguments, *option])
            with pytest.raises(SystemExit) as ended:
                main.run()
            assert not ended.value.code
            said = capfd.readouterr().out
            assert place.split(":")[-1] in said
    assert json.loads(said)["rows"][0]["times"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing", "--pid", "1"], "use syscalls, sched, files or io"),
        (["io", "--pid", "1", "--for", "x"], "duration"),
        (["io"], "either a process or code"),
        (["io", "--run", "/nowhere.py"], "cannot be read"),
        (["--pid", "1"], "either what is built in or by a program"),
        (["--program", "/nowhere.c", "--pid", "1"], "/nowhere.c cannot be read"),
    ],
)
def test_bad_use_is_told_before_anything_is_started(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["runvisor", "observe", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.run()
    assert ended.value.code == 2
    assert says in " ".join(capfd.readouterr().err.split())
