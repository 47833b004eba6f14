"""Coming to Ray: on a machine that is too busy to start it in its time, and only to what is one's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from runvisor.policies.errors import ConfigError, SpawnFailed
from runvisor.supervisor import attach

LATE = Exception("The current node timed out during startup. This could happen because some of the raylet failed")


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """What each start of Ray is to end with; one more ends well."""
    ends: list[Exception] = []

    def init(**options: Any) -> None:
        if ends:
            raise ends.pop(0)

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    return ends


def test_a_ray_that_is_late_is_started_once_more(starts: list[Exception]) -> None:
    starts.append(LATE)
    assert attach.connect(None)


def test_one_that_is_late_again_is_our_error_with_a_remedy(starts: list[Exception]) -> None:
    starts += [LATE, LATE]
    with pytest.raises(SpawnFailed, match="too busy") as failed:
        attach.connect(None)
    assert failed.value.remedy


def test_another_failure_is_not_tried_again(starts: list[Exception]) -> None:
    starts.append(ValueError("no such option"))
    with pytest.raises(ValueError, match="no such option"):
        attach.connect(None)


def test_a_cluster_of_another_version_is_our_error(starts: list[Exception]) -> None:
    starts.append(RuntimeError("Version mismatch: The cluster was started with: Ray: 1.0.0"))
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:1 runs another version"):
        attach.connect("127.0.0.1:1")


@pytest.mark.parametrize(
    ("clusters", "told"),
    [((), "no Ray cluster of this user"), (("10.0.0.1:1", "10.0.0.1:2"), "10.0.0.1:1, 10.0.0.1:2")],
)
def test_unless_a_cluster_is_named_there_must_be_exactly_one_of_ones_own(
    starts: list[Exception], monkeypatch: pytest.MonkeyPatch, clusters: tuple[str, ...], told: str
) -> None:
    starts.append(AssertionError("Ray was asked all the same"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(attach, "own_clusters", lambda: clusters)
    with pytest.raises(ConfigError, match=told):
        attach.running_supervisor(None)


def test_the_one_cluster_and_what_the_environment_names_are_joined(
    starts: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(attach, "own_clusters", lambda: ("10.0.0.1:1",))
    for address in ("10.0.0.1:1", "10.0.0.2:2"):
        starts.append(ConnectionError("nobody answers"))
        with pytest.raises(ConfigError, match=f"no Ray cluster at {address}"):
            attach.running_supervisor(None)
        monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:2")


def test_an_actor_of_that_name_that_is_no_supervisor_is_left_alone(
    starts: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:1"))
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: SimpleNamespace())
    with pytest.raises(ConfigError, match=r"10\.0\.0\.1:1 is not a supervisor"):
        attach.running_supervisor("10.0.0.1:1")
