"""What the globs of a grant let a guest do with which path."""

from __future__ import annotations

import pytest

from runvisor.actors.wasm.wasi import World
from runvisor.actors.wasm.wasi.guard import MAX_DENIALS, Denial, PathGuard

GUARD = PathGuard(
    ["/data/*.csv", "/models", "/deep/*/x/**", "/tmp/host/**"],
    ["/srv/out/**", "/srv/one.txt", "/tmp/host/log/*.log"],
    ["/out", "/tmp"],
)


@pytest.mark.parametrize(
    ("path", "read", "write", "enter"),
    [
        ("/", False, False, True),
        ("/data", False, False, True),
        ("/data/a.csv", True, False, False),
        ("/data/a.txt", False, False, False),
        ("/data/sub", False, False, False),
        ("/data/sub/a.csv", False, False, False),
        ("/database", False, False, False),
        ("/models/a/b", True, False, True),
        ("/modelsx", False, False, False),
        ("/deep/1", False, False, True),
        ("/deep/1/x/y", True, False, True),
        ("/deep/1/y", False, False, True),
        ("/srv", False, False, True),
        ("/srv/out/a", True, True, True),
        ("/srv/one.txt", True, True, True),
        ("/srv/one.txt.bak", False, False, False),
        ("/srv/two.txt", False, False, False),
        ("/out/a", True, True, True),
        ("/tmp/mine", True, True, True),
        ("/tmp/host/a", True, False, True),
        ("/tmp/host/log/a.log", True, True, True),
        ("/tmp/host/log/a.txt", True, False, True),
        ("/etc/passwd", False, False, False),
    ],
)
def test_each_path_goes_by_its_pattern(path: str, read: bool, write: bool, enter: bool) -> None:
    assert (GUARD.may_read(path), GUARD.may_write(path), GUARD.may_enter(path)) == (read, write, enter)


def test_without_patterns_nothing_may_be_done() -> None:
    guard = PathGuard()
    assert not any((guard.may_read("/x"), guard.may_write("/x"), guard.may_enter("/"), guard.may_make_folder("/x")))


def test_folders_may_be_made_on_the_way_to_what_may_be_written() -> None:
    guard = PathGuard([], ["/a/*/b/*.txt"])
    assert guard.may_make_folder("/a/x")
    assert guard.may_make_folder("/a/x/b")
    assert not guard.may_make_folder("/a")
    assert not guard.may_make_folder("/b")


def test_a_flood_of_denials_is_cut() -> None:
    said: list[Denial] = []
    world = World(1, 100, on_denial=said.append)
    for _ in range(MAX_DENIALS + 5):
        world.deny("path_open", "/" + "x" * 5000, "no")
    assert len(said) == MAX_DENIALS
    assert len(said[0].path) == 1000
