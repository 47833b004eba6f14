"""The cache on disk: private, verified, bounded, and shared by several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runvisor.actors.artifacts import ArtifactCache
from runvisor.policies.errors import ConfigError

KEY = b"source, flags, version"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(folder: Path) -> ArtifactCache:
    return ArtifactCache(folder, max_bytes=1 << 20)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/??/*") if path.is_file()]


def only(folder: Path) -> Path:
    (path,) = entries(folder)
    return path


def test_what_was_put_in_comes_out_in_another_process_too(cache: ArtifactCache, folder: Path) -> None:
    cache.put("wasm", KEY, b"module")
    assert ArtifactCache(folder, max_bytes=1 << 20).get("wasm", KEY) == b"module"
    assert cache.get("wasm", b"another key") is None
    assert cache.get("cwasm", KEY) is None


def test_a_later_content_stands_beside_the_first_and_either_may_come_out(cache: ArtifactCache, folder: Path) -> None:
    cache.put("wasm", KEY, b"one")
    cache.put("wasm", KEY, b"two")
    assert cache.get("wasm", KEY) in (b"one", b"two")


def test_an_open_file_is_read_only_whole_and_outlives_its_removal(cache: ArtifactCache, folder: Path) -> None:
    cache.put("wasm", KEY, b"module")
    file = cache.open("wasm", KEY)
    assert file is not None
    try:
        only(folder).unlink()
        assert os.read(file, 100) == b"module"
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(file, b"x")
        assert not os.get_inheritable(file)
    finally:
        os.close(file)
    assert cache.open("wasm", KEY) is None


def test_nothing_stays_open(cache: ArtifactCache, folder: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    cache.put("wasm", KEY, b"module")
    for _ in range(5):
        cache.get("wasm", KEY)
    only(folder).write_bytes(b"damaged")
    cache.get("wasm", KEY)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def truncate(path: Path) -> None:
    os.truncate(path, 3)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip(path: Path) -> None:
    path.write_bytes(b"Module")


def extend(path: Path) -> None:
    path.write_bytes(b"module and more")


def link(path: Path) -> None:
    other = path.with_name("target")
    path.rename(other)
    path.symlink_to(other)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def open_to_others(path: Path) -> None:
    path.chmod(0o644)


def forge_name(path: Path) -> None:
    path.rename(path.with_suffix("." + "0" * 64))


@pytest.mark.parametrize("damage", [truncate, empty, flip, extend, link, fifo, open_to_others, forge_name])
def test_what_is_damaged_or_foreign_is_dropped_and_can_be_put_again(
    cache: ArtifactCache, folder: Path, damage: Callable[[Path], None]
) -> None:
    cache.put("wasm", KEY, b"module")
    path = only(folder)
    damage(path)
    assert cache.get("wasm", KEY) is None
    assert not path.is_symlink()
    assert not path.exists()
    cache.put("wasm", KEY, b"module")
    assert cache.get("wasm", KEY) == b"module"


def test_an_entry_under_another_key_or_kind_is_not_believed(cache: ArtifactCache, folder: Path) -> None:
    cache.put("wasm", b"mine", b"module")
    mine = only(folder)
    cache.put("wasm", b"other", b"other module")
    cache.put("cwasm", b"mine", b"native code")
    for target in entries(folder):
        if target != mine:
            moved = target.parent / f"{target.name.partition('.')[0]}.{mine.suffix[1:]}"
            mine_bytes = mine.read_bytes()
            target.unlink()
            moved.write_bytes(mine_bytes)
            moved.chmod(0o600)
    assert cache.get("wasm", b"other") is None
    assert cache.get("cwasm", b"mine") is None
    assert cache.get("wasm", b"mine") == b"module"


def test_entries_of_another_key_file_are_foreign(cache: ArtifactCache, folder: Path) -> None:
    cache.put("wasm", KEY, b"module")
    (folder / "key").unlink()
    assert ArtifactCache(folder, max_bytes=1 << 20).get("wasm", KEY) is None


def test_a_key_that_was_cut_short_is_replaced(cache: ArtifactCache, folder: Path) -> None:
    cache.put("wasm", KEY, b"module")
    os.truncate(folder / "key", 5)
    again = ArtifactCache(folder, max_bytes=1 << 20)
    assert (folder / "key").stat().st_size == 32
    assert again.get("wasm", KEY) is None


def test_everything_is_this_users_alone(cache: ArtifactCache, folder: Path) -> None:
    cache.put("wasm", KEY, b"module")
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("name", ["", "key"])
@pytest.mark.parametrize("mode", [0o750, 0o702, 0o604])
def test_a_folder_or_key_that_others_can_get_at_is_refused(
    cache: ArtifactCache, folder: Path, name: str, mode: int
) -> None:
    (folder / name).chmod(mode)
    with pytest.raises(ConfigError) as caught:
        ArtifactCache(folder, max_bytes=1)
    assert "chmod go-rwx" in caught.value.remedy


@pytest.mark.root
@pytest.mark.parametrize("name", ["", "key"])
def test_a_folder_or_key_of_another_user_is_refused(cache: ArtifactCache, folder: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(folder / name, 12345, 12345)
    with pytest.raises(ConfigError):
        ArtifactCache(folder, max_bytes=1)


def test_a_link_is_no_folder(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        ArtifactCache(folder, max_bytes=1)


def test_a_folder_that_cannot_be_made_says_which(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as caught:
        ArtifactCache(tmp_path / "file" / "cache", max_bytes=1)
    assert str(tmp_path) in caught.value.what


def test_the_least_recently_used_goes_first(folder: Path) -> None:
    cache = ArtifactCache(folder, max_bytes=10_000)
    for number in range(9):
        cache.put("wasm", b"%d" % number, bytes(1000))
    now = time.time()
    for age, number in enumerate((8, 7, 6, 5, 4, 3, 2, 1, 0)):
        (path,) = (path for path in entries(folder) if path.parent == cache._place("wasm", b"%d" % number)[0])
        os.utime(path, (now - 100 - age, now - 100 - age))
    assert cache.get("wasm", b"0")  # now the last used
    cache.put("wasm", b"9", bytes(1000))
    cache.put("wasm", b"10", bytes(1000))
    kept = [number for number in range(11) if cache.get("wasm", b"%d" % number)]
    assert {0, 9, 10} <= set(kept)
    assert 1 not in kept
    assert sum(path.stat().st_size for path in entries(folder)) <= 10_000


def test_the_bound_holds_whatever_is_put(folder: Path) -> None:
    cache = ArtifactCache(folder, max_bytes=10_000)
    cache.put("wasm", b"too large", bytes(10_001))
    cache.put("wasm", b"nothing", b"")
    assert not entries(folder)
    for number in range(50):
        cache.put("wasm", b"%d" % number, bytes(100 + 37 * number))
        assert sum(path.stat().st_size for path in entries(folder)) <= 10_000


def test_what_was_never_finished_or_is_no_entry_is_cleared_away(folder: Path) -> None:
    cache = ArtifactCache(folder, max_bytes=10_000)
    cache.put("wasm", KEY, b"module")
    place = only(folder).parent
    for name in ("new-old", "new-fresh", "stranger"):
        (place / name).write_bytes(b"x")
    os.utime(place / "new-old", (1, 1))
    ArtifactCache(folder, max_bytes=10_000).put("wasm", b"next", b"module")
    assert [(place / name).exists() for name in ("new-old", "new-fresh", "stranger")] == [False, True, False]


def test_a_full_disk_is_no_error(cache: ArtifactCache, folder: Path) -> None:
    (folder / "wasm").write_bytes(b"no folder")
    cache.put("wasm", KEY, b"module")
    assert cache.get("wasm", KEY) is None


@pytest.mark.parametrize("kind", ["", "../up", "A", "a/b", "key\0"])
def test_a_kind_is_a_plain_word(cache: ArtifactCache, kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        cache.put(kind, KEY, b"module")


_WORKER = """
import sys
from pathlib import Path
from runvisor.actors.artifacts import ArtifactCache
cache = ArtifactCache(Path(sys.argv[1]), max_bytes=20_000)
for number in range(150):
    key = b"%d" % (number % 30)
    found = cache.get("wasm", key)
    assert found in (None, key * 400), "mixed up"
    if found is None:
        cache.put("wasm", key, key * 400)
"""


def test_several_processes_share_it_from_the_first_moment(folder: Path) -> None:
    command = [sys.executable, "-c", _WORKER, str(folder)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    assert [(worker.communicate()[1], worker.returncode) for worker in workers] == [(b"", 0)] * 4
    assert not list(folder.rglob("new-*"))
    assert 0 < sum(path.stat().st_size for path in entries(folder)) <= 20_000 + 4 * 20_000 // 16
