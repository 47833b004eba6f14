"""Only clusters whose node runs as this user are one's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runvisor.supervisor.clusters import own_clusters

NODE = (b"/opt/ray/raylet", b"--raylet_socket_name=/tmp/s", b"--gcs-address=10.0.0.1:6379", b"")


@pytest.fixture
def processes(tmp_path: Path) -> Path:
    for number, arguments in {1: NODE, 2: NODE, 3: (b"python", NODE[2]), 4: ()}.items():
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes(b"\0".join(arguments))
    (tmp_path / "5").mkdir()  # ended
    return tmp_path


def test_a_node_names_its_cluster_once_and_other_processes_name_none(processes: Path) -> None:
    assert own_clusters(processes) == ("10.0.0.1:6379",)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's")
def test_another_users_node_is_not_ones_own(processes: Path) -> None:
    for number in (1, 2):
        os.chown(processes / str(number), 65534, 65534)
    assert own_clusters(processes) == ()
