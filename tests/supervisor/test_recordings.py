"""Recording and replaying, end to end, from Python and from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import msgpack
import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies import errors
from runvisor.policies.recording import Recording
from runvisor.supervisor.cli import main
from runvisor.supervisor.client import Supervisor

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]

CHANCE = """(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1) (func (export "main") (param i64) (result i64)
  (drop (call $random (i32.const 8) (i32.const 8))) (i64.add (local.get 0) (i64.load (i32.const 8)))))"""


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["runvisor", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.run()
    return int(ended.value.code or 0)


def test_a_recorded_execution_replays_to_the_bit(supervisor: Supervisor) -> None:
    result, recording = supervisor.record(CHANCE, "wat", inputs=[5])
    replayed = supervisor.replay(recording.to_bytes())
    assert replayed.is_identical, replayed.differences
    assert replayed.result.value == result.value
    assert replayed.result.usage.instructions == result.usage.instructions


def test_what_nothing_runs_deterministically_is_refused(supervisor: Supervisor) -> None:
    with pytest.raises(errors.NoEligibleArm):
        supervisor.record("1 + 1", "typescript")


def test_the_commands_record_replay_and_tell_a_difference(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code, file = tmp_path / "chance.wat", tmp_path / "chance.recording"
    code.write_text(CHANCE)
    assert run(monkeypatch, "run", str(code), "-i", "[5]", "--record", str(file)) == 0
    assert run(monkeypatch, "replay", str(file)) == 0
    assert "identical" in capfd.readouterr().out
    recording = Recording.from_bytes(file.read_bytes())
    other = Recording(recording.task.with_inputs([6]), recording.versions, recording.observed)
    file.write_bytes(other.to_bytes())
    assert run(monkeypatch, "replay", str(file), "--json") == 1
    told = json.loads(capfd.readouterr().out)
    assert not told["identical"]
    assert [difference.split(":")[0] for difference in told["differences"]] == ["value"]


def test_a_hostile_recording_gets_nothing(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hostile"
    _, recording = supervisor.record(CHANCE, "wat", inputs=[5])
    document = msgpack.unpackb(recording.to_bytes(), raw=False)
    document["task"]["permissions"]["filesystem"] = {"read": ["/**"], "write": []}
    file.write_bytes(msgpack.packb(document) or b"")
    assert run(monkeypatch, "replay", str(file)) == 3
    assert "filesystem.read" in capfd.readouterr().err
    file.write_bytes(b"no recording")
    assert run(monkeypatch, "replay", str(file)) == 2
