"""cluster.yaml: what ``ray up`` would make of it, checked without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "cluster.yaml").read_text()
CLOUD = re.search(r"^# --- AWS\b.*\n((?:#.*\n)+?)# --- end of AWS$", TEXT, re.MULTILINE)


def on_premises() -> dict[str, Any]:
    config = yaml.safe_load(TEXT)
    assert isinstance(config, dict)
    return config


def in_the_cloud() -> dict[str, Any]:
    assert CLOUD is not None
    overlay = yaml.safe_load(re.sub(r"^# ?", "", CLOUD[1], flags=re.MULTILINE))
    return {**on_premises(), **overlay}


@pytest.mark.parametrize("config", [on_premises(), in_the_cloud()], ids=["on-premises", "aws"])
def test_ray_accepts_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["cluster_name"] == "runvisor"
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("config", [on_premises(), in_the_cloud()], ids=["on-premises", "aws"])
def test_every_node_installs_the_wheel_and_what_debian_must_provide(config: dict[str, Any]) -> None:
    commands = "\n".join(prepare_config(config)["setup_commands"])
    for package in ("python3-venv", "python3-bpfcc", "libseccomp2"):
        assert package in commands
    (mounted,) = [there for there, here in config["file_mounts"].items() if here == "./dist"]
    assert f"{mounted}/runvisor-*.whl" in commands


def test_the_nodes_run_the_ray_of_the_lock() -> None:
    (pinned,) = re.findall(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert re.findall(r"ray==([0-9.]+)", "\n".join(on_premises()["setup_commands"])) == [pinned]


@pytest.mark.parametrize("config", [on_premises(), in_the_cloud()], ids=["on-premises", "aws"])
def test_whoever_talks_to_ray_must_hold_the_token(config: dict[str, Any]) -> None:
    prepared = prepare_config(config)
    assert "~/.ray/auth_token" in prepared["file_mounts"]
    for commands in (prepared["head_start_ray_commands"], prepared["worker_start_ray_commands"]):
        starts = [command for command in commands if "ray start" in command]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0]
