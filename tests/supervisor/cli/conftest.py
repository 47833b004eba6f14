"""Commands run in this process, attached to the supervisor of the test session."""

from __future__ import annotations

import sys

import pytest

from runvisor.supervisor.cli import main
from runvisor.supervisor.client import Supervisor
from tests.supervisor.cli.commands import Command


@pytest.fixture
def command(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process, attached to the supervisor of the test session."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["runvisor", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main.run()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run
