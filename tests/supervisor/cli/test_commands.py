"""The commands as a person or a program meets them: output, JSON and exit status."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runvisor.actors.ebpf.probe import probe_ebpf
from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.scheduling.decision import HEADINGS
from runvisor.supervisor.cli.live import LiveOutput
from runvisor.supervisor.cli.output import visible
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.execution import Output
from tests.policies.test_captures import pcap
from tests.supervisor.cli.commands import Command, document

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]


def test_run_prints_the_guests_output_then_its_value(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text("print('hello')\n[n * n for n in range(3)]\n")
    status, out, err = command("run", str(file))
    assert (status, out) == (0, "hello\n[0, 1, 4]\n")
    assert "python/native" in err


def test_an_objective_is_taken_or_refused_before_anything_runs(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text("40 + 2\n")
    assert command("run", str(file), "--objective", "slo 100ms", "--critical")[0] == 0
    status, out, err = command("run", str(file), "--objective", "soon")
    assert (status, out) == (2, "")
    assert "mean + 2*std" in err


def test_output_is_printed_while_the_guest_runs_and_only_once(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text("import sys\nprint('one', end='')\nprint('odd', file=sys.stderr)\n2\n")
    status, out, err = command("run", str(file))
    assert (status, out) == (0, "one\n2\n")
    assert err.count("odd") == 1


def test_ctrl_c_calls_the_task_off_and_exits_as_a_shell_expects(
    command: Command, tmp_path: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "task.py"
    file.write_text("print('ready', flush=True)\nwhile True: pass\n")

    def interrupt(live: LiveOutput, output: Output) -> None:
        raise KeyboardInterrupt  # as Python does when the signal comes while it waits for output

    monkeypatch.setattr(LiveOutput, "__call__", interrupt)
    assert command("run", str(file), "--timeout", "100")[0] == 130
    assert supervisor.run("1", "python").value == 1


def test_a_session_runs_cells_from_standard_input_and_goes_on_from_its_checkpoint(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "book.json"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n = 20\nprint('set')\n\nn + 1\n"))
    status, out, err = command("session", "python", "--save", str(saved))
    assert (status, out) == (0, "set\n21\n"), err
    monkeypatch.setattr(sys, "stdin", io.StringIO("n + 2\n\n1 / 0\n"))
    status, out, _ = command("session", "--restore", str(saved), "--json")
    first, second = map(json.loads, out.splitlines())
    assert (status, first["value"], second["error"]["type"]) == (1, 22, "GuestException")


def test_a_file_that_is_no_checkpoint_is_bad_use(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "book.json"
    file.write_text("[")
    assert command("session", "--restore", str(file))[0] == 2


def test_run_as_json_gives_one_document_with_every_part(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "task.js"
    file.write_text("console.log('hi'); ({sum: inputs.a + 1})")
    status, out, _ = command("run", str(file), "--inputs", '{"a": 1}', "--json")
    result = document(out)
    assert status == 0
    assert set(result) >= {
        "value", "stdout", "stderr", "error", "runtime", "variant", "language", "usage", "isolation", "decision",
    }  # fmt: skip
    assert (result["value"], result["stdout"], result["runtime"]) == ({"sum": 2}, "hi\n", "v8")


def test_a_file_is_one_of_the_inputs_by_name(command: Command, tmp_path: Path) -> None:
    file, data = tmp_path / "task.py", tmp_path / "data.bin"
    file.write_text("[inputs['raw'].hex(), inputs['n']]")
    data.write_bytes(bytes([0, 255]))
    given = ("--input", f"raw={data}")
    status, out, _ = command("run", str(file), "--inputs", '{"n": 1}', *given, "--json")
    assert (status, document(out)["value"]) == (0, ["00ff", 1])
    for bad in ((*given, *given), ("--input", str(data)), ("--input", f"n={data}"), ("--input", "raw=/no/such")):
        assert command("run", str(file), "--inputs", '{"n": 1}', *bad)[0] == 2
    assert command("run", str(file), "--inputs", "[1]", *given)[0] == 2


@pytest.mark.kernel
def test_a_packet_program_runs_over_a_capture(command: Command, tmp_path: Path) -> None:
    probe = probe_ebpf()
    if not probe.available:
        pytest.skip(f"{probe.detail}; {probe.remedy}")
    file, capture = tmp_path / "filter.c", tmp_path / "capture.pcap"
    file.write_text("int on_packet(struct packet *p, struct state *s) { return load_byte(p, 0) == 7; }")
    capture.write_bytes(pcap([b"\7 kept", b"dropped"]))
    status, out, err = command("run", str(file), "--input", f"pcap={capture}", "--trust", "verified", "--json")
    assert status == 0, err
    assert document(out)["value"]["verdicts"] == {"accepted": 1, "dropped": 1}
    status, out, _ = command("run", str(file), "--input", f"pcap={capture}", "--json")
    assert (status, document(out)["error"]["type"]) == (3, "NoEligibleArm")
    assert "it takes verified" in document(out)["error"]["excluded"]["ebpf/packet"]


@pytest.mark.parametrize(
    ("code", "options", "status", "error"),
    [
        ("1 / 0", [], 1, "GuestException"),
        ("def f(:", [], 1, "GuestSyntaxError"),
        ("1", ["--language", "klingon"], 2, "UnknownLanguage"),
        ("1", ["--inputs", "{"], 2, "ConfigError"),
        ("1", ["--memory", "lots"], 2, "InvalidPermissions"),
        ("1", ["--profile", "klingon"], 2, "UnknownProfile"),
        ("1", ["--allow-host", "example.com"], 3, "CapabilityDenied"),
        ("int f;", ["-l", "c-record", "--allow-host", "example.com", "--trust", "verified"], 3, "NoEligibleArm"),
        ("while True: pass", ["--timeout", "0.3"], 4, "TimeLimitExceeded"),
        ("print('y' * (1 << 22))", [], 4, "OutputLimitExceeded"),
    ],
)
def test_each_kind_of_failure_has_its_exit_status_and_its_type(
    command: Command, tmp_path: Path, code: str, options: list[str], status: int, error: str
) -> None:
    file = tmp_path / "task.py"
    file.write_text(code)
    got, out, _ = command("run", str(file), *options, "--json")
    assert (got, document(out)["error"]["type"]) == (status, error)


def test_a_missing_file_is_bad_use(command: Command) -> None:
    status, out, err = command("run", "no/such/file.py")
    assert (status, out) == (2, "")
    assert "no/such/file.py" in err


def test_an_option_that_does_not_exist_is_bad_use(command: Command) -> None:
    assert command("run", "--no-such-option")[0] == 2


def test_explain_says_why(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text("import numpy\n1")
    err = command("run", str(file), "--explain")[2]
    assert "Chose python/native" in err
    assert all(heading in err for heading in HEADINGS)


def test_a_plan_shows_each_step_and_ends_with_its_report(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "plan.md"
    file.write_text(
        "# Sums\n\n```python id=load\n[1, 2]\n```\n\n```javascript id=sum\ninputs.load[0] + inputs.load[1]\n```\n"
    )
    report = tmp_path / "report.html"
    status, out, err = command("plan", str(file), "--report", str(report))
    assert status == 0, err
    assert "load" in out
    assert "v8/isolate" in out
    assert "<html" in report.read_text()


def test_a_plan_as_json_is_one_document(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "plan.md"
    file.write_text(
        "# Fails\n\n```python id=bad\n1 / 0\n```\n\n"
        "```python id=after\ninputs['bad']\n```\n\n```python id=apart\n1\n```\n"
    )
    status, out, _ = command("plan", str(file), "--json")
    steps = {step["step"]: step["state"] for step in document(out)["steps"]}
    assert status == 1
    assert steps == {"bad": "failed", "after": "skipped", "apart": "done"}


@pytest.mark.parametrize(
    "text",
    [
        "# Cycle\n\n```python id=a needs=b\n1\n```\n\n```python id=b needs=a\n1\n```\n",
        "# Unknown\n\n```python id=a needs=nowhere\n1\n```\n",
    ],
)
def test_a_plan_that_cannot_be_is_bad_use(command: Command, tmp_path: Path, text: str) -> None:
    file = tmp_path / "plan.md"
    file.write_text(text)
    status, _, err = command("plan", str(file))
    assert status == 2
    assert "InvalidPlan" in err


def test_doctor_has_a_line_per_runtime(command: Command) -> None:
    _, out, _ = command("doctor", "--json")
    runtimes = {finding["runtime"]: finding for finding in document(out)["runtimes"]}
    assert set(runtimes) >= {"python", "v8", "wasm", "ebpf"}
    assert runtimes["python"]["works"] is True
    assert all(finding["works"] or finding["remedy"] for finding in runtimes.values())


def test_humaneval_passes_what_is_right_and_fails_what_is_broken(command: Command) -> None:
    status, out, err = command("humaneval", "--limit", "12", "--json")
    scores = document(out)
    assert status == 0, err
    assert (scores["reference"]["passed"], scores["broken"]["passed"]) == (12, 0)


@pytest.mark.slow
def test_stdout_holds_nothing_but_the_document_even_with_a_ray_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "task.py"
    file.write_text("6 * 7")
    command = [sys.executable, "-c", "from runvisor.supervisor.cli.main import run; run()", "run", str(file), "--json"]
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True, env=environment)
    assert document(ran.stdout)["value"] == 42
    assert len(list((tmp_path / "runvisor" / "audit").glob("python-*.jsonl"))) >= 1


def test_a_guest_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in visible("\x1b]0;title\x07\x1b[2J")
    assert visible("line\n\ttab") == "line\n\ttab"
