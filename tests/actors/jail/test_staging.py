"""Files move only as regular files, below one folder, by no link, within their caps."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail import staging
from runvisor.actors.jail.staging import Room, copy_in, harvest, open_path, publish, stamps, write_files
from runvisor.policies.errors import DiskLimitExceeded

PLENTY = 1 << 30


def everything(path: str) -> bool:
    return bool(path)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "folder"
    path.mkdir()
    fd = open_path(str(path))
    yield path, fd
    os.close(fd)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    path = tmp_path / "other"
    path.mkdir()
    fd = open_path(str(path))
    yield path, fd
    os.close(fd)


def test_a_path_through_a_link_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="symbolic links"):
        open_path(str(tmp_path / "link"))


def test_files_are_written_with_their_folders(folder: tuple[Path, int]) -> None:
    path, fd = folder
    write_files(fd, {"a.txt": b"a", "deep/er/b.txt": b"b"})
    assert (path / "a.txt").read_bytes() == b"a"
    assert (path / "deep/er/b.txt").read_bytes() == b"b"


def test_what_is_left_is_taken_whole_with_its_path(folder: tuple[Path, int]) -> None:
    path, fd = folder
    (path / "deep").mkdir()
    (path / "deep" / "b.bin").write_bytes(b"\0\1")
    found = harvest(fd, everything, Room(10, PLENTY))
    assert found.files == {"deep/b.bin": b"\0\1"}
    assert found.refused == []


def test_only_regular_files_leave(folder: tuple[Path, int], tmp_path: Path) -> None:
    path, fd = folder
    secret = tmp_path / "secret"
    secret.write_text("canary")
    (path / "link").symlink_to(secret)
    (path / "folder-link").symlink_to(tmp_path)
    os.mkfifo(path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path / "socket"))
        found = harvest(fd, everything, Room(10, PLENTY))
    assert found.files == {}
    assert len(found.refused) == 4


@pytest.mark.parametrize("name", ["new\nline", "bell\a", "\udcff"])
def test_names_that_are_not_plain_text_stay(folder: tuple[Path, int], name: str) -> None:
    path, fd = folder
    (path / name).write_text("x")
    found = harvest(fd, everything, Room(10, PLENTY))
    assert found.files == {}
    assert len(found.refused) == 1


def test_caps_on_count_and_bytes_hold_and_say_so(folder: tuple[Path, int]) -> None:
    path, fd = folder
    for number in range(4):
        (path / f"{number}").write_bytes(bytes(10))
    with (path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    found = harvest(fd, everything, Room(3, 25))
    assert list(found.files) == ["0", "1"]
    assert len(found.refused) == 3
    assert harvest(fd, everything, Room(2, PLENTY)).files.keys() == {"0", "1"}


def test_a_flood_of_refusals_is_cut(folder: tuple[Path, int]) -> None:
    path, fd = folder
    for number in range(100):
        (path / str(number)).symlink_to("nowhere")
    assert len(harvest(fd, everything, Room(10, PLENTY)).refused) == 32


def test_what_was_not_changed_is_not_taken(folder: tuple[Path, int]) -> None:
    path, fd = folder
    (path / "old").write_text("same")
    (path / "edited").write_text("before")
    known = stamps(fd)
    (path / "edited").write_text("after!")
    assert harvest(fd, everything, Room(10, PLENTY), known).files == {"edited": b"after!"}


def test_publishing_replaces_a_link_and_follows_none(folder: tuple[Path, int], tmp_path: Path) -> None:
    path, fd = folder
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (path / "out.txt").symlink_to(victim)
    publish(fd, {"out.txt": b"new", "sub/x": b"y"})
    assert victim.read_text() == "untouched"
    assert (path / "out.txt").read_text() == "new"
    assert not (path / "out.txt").is_symlink()
    (path / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(OSError, match="symbolic links"):
        publish(fd, {"elsewhere/pwned": b"x"})
    assert not (tmp_path / "pwned").exists()


def test_copying_in_stays_within_its_room(folder: tuple[Path, int], other: tuple[Path, int]) -> None:
    path, fd = folder
    (path / "a.csv").write_bytes(bytes(100))
    (path / "b.txt").write_bytes(bytes(100))
    copy_in(fd, other[1], lambda name: name.endswith(".csv"), Room(10, 100), writable=False)
    assert sorted(entry.name for entry in other[0].iterdir()) == ["a.csv"]
    with pytest.raises(DiskLimitExceeded, match="do not fit"):
        copy_in(fd, other[1], everything, Room(10, 150), writable=False)


def test_a_name_that_flips_between_file_and_link_never_yields_what_the_link_names(
    folder: tuple[Path, int], other: tuple[Path, int], tmp_path: Path
) -> None:
    path, fd = folder
    secret = tmp_path / "secret"
    secret.write_text("canary")
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            (path / "l").symlink_to(secret)
            (path / "l").replace(path / "x")
            (path / "f").write_text("plain")
            (path / "f").replace(path / "x")

    racer = threading.Thread(target=flip)
    racer.start()
    try:
        for _ in range(2000):
            found = harvest(fd, lambda name: name == "x", Room(10, PLENTY))
            assert found.files.get("x", b"plain") in (b"plain", b"")
    finally:
        stop.set()
        racer.join()


def test_depth_and_number_of_entries_are_bounded(folder: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    path, fd = folder
    deep = path
    for _ in range(40):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "x").write_text("too deep")
    assert harvest(fd, everything, Room(10, PLENTY)).files == {}
    monkeypatch.setattr(staging, "_MAX_ENTRIES", 5)
    for number in range(9):
        (path / f"n{number}").write_text("")
    assert len(harvest(fd, everything, Room(100, PLENTY)).files) < 9
