"""From the flag on the command line to the counts in its answer, over a supervisor of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.actors.witness.conftest import missing

COMMAND = [sys.executable, "-c", "from runvisor.supervisor.cli.main import run; run()"]


@pytest.mark.slow
@pytest.mark.kernel
@pytest.mark.root
def test_the_flag_has_the_kernel_count_and_the_log_keeps_it(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    file = tmp_path / "task.py"
    file.write_text("import os\ntry:\n    os.fork()\nexcept PermissionError:\n    pass\n7")
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    ran = subprocess.run(
        [*COMMAND, "run", str(file), "--observability", "kernel", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
        env=environment,
    )
    told = json.loads(ran.stdout)
    assert told["value"] == 7
    assert told["isolation"]["witness"] == "kernel"
    assert told["usage"]["kernel"]["refused"] == [{"call": "clone", "error": "EPERM", "count": 1}]
    (log,) = (tmp_path / "runvisor" / "audit").glob("python-*.jsonl")
    records = [json.loads(line)["details"] for line in log.read_text().splitlines()]
    assert any(record.get("kernel", {}).get("refused") == {"clone EPERM": 1} for record in records)
