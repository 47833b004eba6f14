"""A scratch on the host's disk is removed whatever its guest made of it."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail import scratch

LONG = "d" * 200


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one: a disk takes a millisecond for each folder in it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        (Path(place) / "scratch").mkdir()
        yield Path(place) / "scratch"


def make_deep(folder: Path, levels: int) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(LONG, dir_fd=here)
        inner = os.open(LONG, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_a_tree_deeper_than_any_stack_and_any_path_is_removed(folder: Path) -> None:
    make_deep(folder, 1500)
    scratch.remove(str(folder))
    assert not folder.exists()


def test_a_deep_tree_takes_no_more_descriptors_than_a_flat_one(folder: Path) -> None:
    make_deep(folder, 300)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()) + 4
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        scratch.remove(str(folder))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not folder.exists()


def test_a_link_is_removed_and_not_followed(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("host")
    (folder / "inner").mkdir()
    for name in ("link", "inner/link"):
        (folder / name).symlink_to(kept)
    scratch.remove(str(folder))
    assert not folder.exists()
    assert (kept / "file").read_text() == "host"


def test_folders_that_may_not_be_entered_are_removed(folder: Path) -> None:
    (folder / "outer/inner").mkdir(parents=True)
    (folder / "outer/inner/file").touch()
    (folder / "outer/inner").chmod(0)
    (folder / "outer").chmod(0)
    scratch.remove(str(folder))
    assert not folder.exists()


def test_many_files_and_folders_of_the_same_names_are_removed(folder: Path) -> None:
    for outer in range(20):
        for inner in range(20):
            (folder / str(outer) / str(inner)).mkdir(parents=True)
            (folder / str(outer) / str(inner) / "0").touch()
    for number in range(1000):
        (folder / f"file{number}").touch()
    scratch.remove(str(folder))
    assert not folder.exists()


def test_a_link_in_place_of_the_scratch_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    scratch.remove(str(tmp_path / "link"))
    assert (tmp_path / "kept" / "file").exists()
    scratch.remove(str(tmp_path / "none"))
