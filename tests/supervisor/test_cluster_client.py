"""Joining a running Ray: one supervisor for all who come, and it outlives them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.probe import probe_jail

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node of its own on a free loopback port: (address, environment for clients)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="rv-", dir="/tmp")  # short: a socket's path has at most 107 bytes
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TMPDIR": folder, "RAY_worker_niceness": "0"}
    command = [*RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=2"]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}/ray"]
    head = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert head.stdout is not None
    try:
        assert any("Ray runtime started" in line for line in head.stdout), "the head node did not start"
        yield f"127.0.0.1:{port}", environment
    finally:
        head.terminate()
        head.wait(timeout=60)
        head.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)  # the pools died with their node and could not


def test_two_clients_one_after_the_other_share_one_supervisor(cluster: tuple[str, dict[str, str]]) -> None:
    address, environment = cluster
    program = (
        "import json, sys\n"
        "from runvisor import Supervisor\n"
        "sv = Supervisor.start(sys.argv[1])\n"
        "result = sv.run('20 + 22', 'javascript')\n"
        "tree = sv.describe()\n"
        "sv.close()\n"
        "print(json.dumps([result.value, tree['epoch'], tree['pools'][0]['active']['nonce']]), file=sys.stderr)\n"
    )
    answers = []
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, "-c", program, address],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        answers.append(json.loads(ran.stderr.strip().splitlines()[-1]))
    assert answers[0][0] == 42
    assert answers[0] == answers[1]
