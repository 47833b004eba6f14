"""What a grant shows a guest, and what of its writing reaches the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail.child import Child
from runvisor.actors.jail.granted_files import GrantedFiles
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.staging import Room
from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.errors import DiskLimitExceeded, InvalidPermissions
from runvisor.policies.permissions import Filesystem, MiB
from tests.actors.jail.test_zygote import PRISONER, ask

pytestmark = [
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    pytest.mark.skipif(find_standing() is Standing.PLAIN, reason="without namespaces no file can be granted"),
]

BINDS = find_standing() is Standing.ROOT


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(PRISONER)
    zygote.start()
    yield zygote
    zygote.close()


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of the host, with a secret beside it."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() != "root" or folder == tmp_path:
            folder.chmod(0o755)
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for path in (data, data / "sub"):
        path.chmod(0o755)
    (data / "a.csv").write_text("1,2")
    (data / "b.txt").write_text("text")
    (data / "sub" / "c.csv").write_text("3,4")
    (tmp_path / "secret").write_text("canary")
    return data


@contextmanager
def jailed(
    zygote: Zygote, *, may_bind: bool = BINDS, **patterns: tuple[str, ...]
) -> Iterator[tuple[Child, GrantedFiles]]:
    granted = GrantedFiles(Filesystem(**patterns), may_bind=may_bind)
    child = zygote.spawn(memory_bytes=64 * MiB, view=granted.view, bound=granted.bound)
    try:
        granted.stage(child.folders[2:], 16 * MiB)
        yield child, granted
    finally:
        child.close()
        granted.close()


def published(child: Child, granted: GrantedFiles) -> list[str]:
    child.kill()
    assert child.exit() is not None
    return granted.publish(child.folders[2:], Room(100, 16 * MiB))


@pytest.mark.parametrize("may_bind", [BINDS, False])
def test_a_whole_folder_is_there_and_read_only(zygote: Zygote, host: Path, may_bind: bool) -> None:
    with jailed(zygote, may_bind=may_bind, read=(f"{host}/**",)) as (child, _):
        assert ask(child, f"open('{host}/sub/c.csv').read()") == "3,4"
        assert ask(child, f"open('{host}/a.csv', 'a')") in ("OSError", "PermissionError")
        assert ask(child, f"open('{host}/new', 'w')") in ("OSError", "PermissionError")
        assert ask(child, f"os.unlink('{host}/a.csv')") in ("OSError", "PermissionError")
        assert ask(child, f"os.chmod('{host}/a.csv', 0o777)") in ("OSError", "PermissionError")
        assert ask(child, f"open('{host.parent}/secret').read()") in ("FileNotFoundError", "PermissionError")


def test_a_pattern_shows_what_matches_and_nothing_else(zygote: Zygote, host: Path) -> None:
    with jailed(zygote, read=(f"{host}/*.csv",)) as (child, _):
        assert ask(child, f"sorted(os.listdir('{host}'))") == ["a.csv"]
        assert ask(child, f"open('{host}/a.csv').read()") == "1,2"
        assert ask(child, f"open('{host}/a.csv', 'w')") in ("OSError", "PermissionError")


def test_a_single_file_is_shown_alone(zygote: Zygote, host: Path) -> None:
    with jailed(zygote, read=(f"{host}/b.txt",)) as (child, _):
        assert ask(child, f"open('{host}/b.txt').read()") == "text"
        assert ask(child, f"open('{host}/a.csv').read()") == "FileNotFoundError"


def test_a_file_that_only_its_owner_may_read_is_copied(zygote: Zygote, host: Path) -> None:
    (host / "b.txt").chmod(0o600)
    with jailed(zygote, read=(f"{host}/b.txt",)) as (child, _):
        assert ask(child, f"open('{host}/b.txt').read()") == "text"


def test_what_is_written_arrives_only_after_the_end_and_only_where_granted(zygote: Zygote, host: Path) -> None:
    with jailed(zygote, write=(f"{host}/*.txt",)) as (child, granted):
        assert ask(child, f"open('{host}/b.txt').read()") == "text"  # what may be written may be read
        assert ask(child, f"open('{host}/b.txt', 'w').write('changed')") == 7
        assert ask(child, f"open('{host}/new.txt', 'w').write('n')") == 1
        assert ask(child, f"open('{host}/other.csv', 'w').write('n')") == 1
        assert (host / "b.txt").read_text() == "text"
        refused = published(child, granted)
    assert (host / "b.txt").read_text() == "changed"
    assert (host / "new.txt").read_text() == "n"
    assert not (host / "other.csv").exists()
    assert len(refused) == 1
    assert "other.csv" in refused[0]


def test_one_file_may_be_granted_for_writing(zygote: Zygote, host: Path) -> None:
    with jailed(zygote, write=(f"{host}/report.md",)) as (child, granted):
        assert ask(child, f"sorted(os.listdir('{host}'))") == []
        assert ask(child, f"open('{host}/report.md', 'w').write('# r')") == 3
        assert published(child, granted) == []
    assert (host / "report.md").read_text() == "# r"
    assert (host / "report.md").owner() == host.owner()


@pytest.mark.parametrize(
    "leave",
    [
        "os.symlink('/etc/shadow', '{host}/x.txt')",
        "os.mkfifo('{host}/x.txt')",
        "os.mkdir('{host}/x.txt')",
    ],
)
def test_links_pipes_and_folders_do_not_get_out(zygote: Zygote, host: Path, leave: str) -> None:
    before = sorted(host.iterdir())
    with jailed(zygote, write=(f"{host}/*.txt",)) as (child, granted):
        ask(child, "None", leave.replace("{host}", str(host)))
        published(child, granted)
    assert sorted(host.iterdir()) == before


def test_a_folder_to_read_may_hold_one_to_write(zygote: Zygote, host: Path) -> None:
    with jailed(zygote, read=(f"{host}/**",), write=(f"{host}/sub/**",)) as (child, granted):
        assert ask(child, f"open('{host}/a.csv').read()") == "1,2"
        assert ask(child, f"open('{host}/sub/d.csv', 'w').write('5')") == 1
        assert ask(child, f"open('{host}/d.csv', 'w')") in ("OSError", "PermissionError")
        assert published(child, granted) == []
    assert (host / "sub" / "d.csv").read_text() == "5"


def test_a_folder_to_write_may_hold_one_to_read(zygote: Zygote, host: Path) -> None:
    with jailed(zygote, read=(f"{host}/sub/**",), write=(f"{host}/*.txt",)) as (child, granted):
        assert ask(child, f"open('{host}/sub/c.csv').read()") == "3,4"
        assert ask(child, f"open('{host}/n.txt', 'w').write('5')") == 1
        assert published(child, granted) == []
    assert (host / "n.txt").read_text() == "5"


def test_more_than_the_disk_holds_is_refused(zygote: Zygote, host: Path) -> None:
    (host / "big.csv").write_bytes(bytes(2 * MiB))
    granted = GrantedFiles(Filesystem(read=(f"{host}/*.csv",)), may_bind=False)
    child = zygote.spawn(memory_bytes=64 * MiB, view=granted.view, bound=granted.bound)
    try:
        with pytest.raises(DiskLimitExceeded, match="do not fit"):
            granted.stage(child.folders[2:], 1 * MiB)
    finally:
        child.close()
        granted.close()


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (lambda host: f"{host}/missing.csv", "No such file"),
        (lambda host: f"{host}/missing/*.csv", "No such file"),
        (lambda host: f"{host.parent}/link/**", "through a link"),
        (lambda host: "/proc/self/*", "sandbox's own"),
        (lambda host: "/tmp/*", "sandbox's own"),
        (lambda host: "/dev/null", "sandbox's own"),
        (lambda host: f"{host}/a.csv/*", "Not a directory|no folder"),
        (lambda host: "data/*", "absolute"),
    ],
)
def test_what_cannot_be_granted_is_refused_by_name(host: Path, pattern: Callable[[Path], str], reason: str) -> None:
    (host.parent / "link").symlink_to(host)
    for kind in ("read", "write"):
        if kind == "write" and "missing.csv" in pattern(host):
            continue  # a file that is to be made
        if kind == "write" and pattern(host).startswith("/dev"):
            continue
        patterns: dict[str, Any] = {kind: (pattern(host),)}
        with pytest.raises(InvalidPermissions, match=reason) as caught:
            GrantedFiles(Filesystem(**patterns), may_bind=BINDS)
        assert caught.value.where == f"filesystem.{kind}[0]"


def test_it_starts_in_the_folder_that_relative_paths_were_meant_from(zygote: Zygote, host: Path) -> None:
    granted = GrantedFiles(Filesystem(read=(f"{host}/*.csv",)), may_bind=BINDS)
    child = zygote.spawn(memory_bytes=64 * MiB, view=granted.view, bound=granted.bound, folder=str(host.parent))
    try:
        granted.stage(child.folders[2:], 16 * MiB)
        assert ask(child, "open('data/a.csv').read()") == "1,2"
    finally:
        child.close()
        granted.close()


def test_no_descriptor_is_left_open(zygote: Zygote, host: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with jailed(zygote, read=(f"{host}/**",), write=(f"{host}/sub/*",)) as (child, granted):
            published(child, granted)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
