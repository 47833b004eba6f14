"""Coming to Ray on a machine that is too busy to start it in the time that Ray gives itself."""

from __future__ import annotations

from typing import Any

import pytest
import ray

from runvisor.policies.errors import SpawnFailed
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
