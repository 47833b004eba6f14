"""Beliefs on disk: whole or refused, never lost by a refusal, nobody else's business."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runvisor.policies.errors import ProtocolError
from runvisor.supervisor.belief_file import BeliefFile

DOCUMENT = {"format": 1, "policy": "p", "state": {"arms": {"python/native": [1.0, 2.5]}}}


@pytest.fixture
def file(tmp_path: Path) -> BeliefFile:
    return BeliefFile.of(tmp_path / "policy")


def test_what_was_written_last_is_read_and_only_its_owner_may(file: BeliefFile) -> None:
    assert file.read(dict) is None
    file.write({"policy": "older"})
    file.write(DOCUMENT)
    assert file.read(dict) == DOCUMENT
    assert (file.path.stat().st_mode & 0o777, file.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert list(file.path.parent.iterdir()) == [file.path]


def test_a_write_that_fails_leaves_the_last_one(file: BeliefFile) -> None:
    file.write(DOCUMENT)
    with pytest.raises(TypeError):
        file.write({"policy": object()})
    assert file.read(dict) == DOCUMENT
    assert list(file.path.parent.iterdir()) == [file.path]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed_and_the_file_is_put_aside(file: BeliefFile, at: int, change: int) -> None:
    file.write(DOCUMENT)
    data = bytearray(file.path.read_bytes())
    data[at % len(data)] ^= change
    file.path.write_bytes(data)
    assert file.read(dict) is None
    assert not file.path.exists()
    (aside,) = file.path.parent.iterdir()
    assert aside.read_bytes() == data
    aside.unlink()


def test_another_version_is_put_aside_with_a_line_in_the_log(
    file: BeliefFile, caplog: pytest.LogCaptureFixture
) -> None:
    def of_another_version(document: Mapping[str, Any]) -> None:
        raise ProtocolError("format 2")

    file.write(DOCUMENT)
    with caplog.at_level(logging.WARNING):
        assert file.read(of_another_version) is None
    (aside,) = file.path.parent.iterdir()
    assert aside.name in caplog.text
    assert "format 2" in caplog.text


def test_a_link_in_its_place_is_not_followed(file: BeliefFile, tmp_path: Path) -> None:
    file.write(DOCUMENT)
    file.path.rename(tmp_path / "elsewhere")
    file.path.symlink_to(tmp_path / "elsewhere")
    assert file.read(dict) is None


def test_a_pipe_in_its_place_is_not_waited_for(file: BeliefFile) -> None:
    file.path.parent.mkdir(mode=0o700)
    os.mkfifo(file.path)
    assert file.read(dict) is None


def test_nothing_is_saved_where_others_may_look(file: BeliefFile) -> None:
    file.path.parent.mkdir(mode=0o750)
    with pytest.raises(PermissionError, match="chmod"):
        file.write(DOCUMENT)
    assert list(file.path.parent.iterdir()) == []


def test_each_cluster_has_one_and_no_address_leaves_the_folder(tmp_path: Path) -> None:
    names = {BeliefFile.of(tmp_path, cluster).path for cluster in ("", "10.0.0.1:6379", "../../etc/x")}
    assert len(names) == 3
    assert {path.parent for path in names} == {tmp_path}
