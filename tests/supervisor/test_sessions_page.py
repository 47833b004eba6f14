"""The examples of docs/sessions.md run, and print what the page says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.supervisor.client import Supervisor

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "sessions.md"


def test_the_examples_run(supervisor: Supervisor, capsys: pytest.CaptureFixture[str]) -> None:
    program = "".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    ours = program.replace("sv = Supervisor.start()\n", "").replace("sv.close()\n", "")
    assert len(ours) < len(program)
    exec(compile(ours, str(PAGE), "exec"), {"sv": supervisor})
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["0", "1", "2"]
    assert lines[lines.index("value 7") + 1 :][:2] == [r"Cancelled 'on\n'", "3"]
    assert all(200 < float(line) < 300 for line in lines[-4:])
