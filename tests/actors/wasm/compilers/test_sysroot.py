"""Prebuilt libraries: whole, private, built once, or not used. (The real ones are built by the tests of languages.)"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runvisor.actors.wasm.compilers import sysroot, ziglang
from runvisor.actors.wasm.compilers.__main__ import main
from runvisor.actors.wasm.compilers.sysroot import Sysroot, run_tool
from runvisor.policies.errors import ConfigError, SpawnFailed


class Library:
    """A library of two files, and how often it was built."""

    def __init__(self) -> None:
        self.version = "1"
        self.builds = 0
        self.sysroot = Sysroot("lib", "a library", 1, lambda: [self.version], self.build)

    def build(self, work: Path) -> Mapping[str, Path]:
        self.builds += 1
        (work / "one").write_bytes(b"first")
        (work / "two").write_bytes(b"second")
        return {"one.a": work / "one", "deeper/two.a": work / "two"}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setenv("RUNVISOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sysroot, "_verified", set())
    return Library()


def built(library: Library) -> Path:
    folder = library.sysroot.folder()
    assert folder is not None
    return folder


def test_it_is_built_once_and_found_again(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    assert library.sysroot.folder(may_build=False) is None
    folder = built(library)
    assert ((folder / "one.a").read_bytes(), (folder / "deeper/two.a").read_bytes()) == (b"first", b"second")
    monkeypatch.setattr(sysroot, "_verified", set())  # as another process would see it
    assert (built(library), library.builds) == (folder, 1)
    assert library.sysroot.folder(may_build=False) == folder


def test_a_new_version_is_built_beside_the_old(library: Library) -> None:
    old = built(library)
    library.version = "2"
    assert built(library) != old
    assert library.builds == 2


def test_the_jail_may_read_the_files_and_others_not_come_near_them(library: Library) -> None:
    folder = built(library)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "deeper/two.a").stat().st_mode & 0o777 == 0o644
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.parent.iterdir() if path.name not in ("lock", folder.name)] == []


def damage(folder: Path) -> None:
    (folder / "one.a").write_bytes(b"other")


def lose(folder: Path) -> None:
    (folder / "deeper/two.a").unlink()


def empty_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def list_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def break_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("")


def point_outside(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"../../escaped": "00"}')


@pytest.mark.parametrize("harm", [damage, lose, empty_manifest, list_manifest, break_manifest, point_outside])
def test_what_is_not_whole_is_built_anew(
    library: Library, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    harm(built(library))
    monkeypatch.setattr(sysroot, "_verified", set())
    assert library.sysroot.folder(may_build=False) is None
    assert (built(library) / "one.a").read_bytes() == b"first"
    assert library.builds == 2


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_folder_that_others_can_write_to_is_refused(
    library: Library, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built(library)
    monkeypatch.setattr(sysroot, "_verified", set())
    [folder, folder.parent, folder.parent.parent][levels].chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        library.sysroot.folder()
    assert "0700" in caught.value.remedy


def test_nothing_is_made_where_nothing_is_to_be_built(library: Library, tmp_path: Path) -> None:
    assert library.sysroot.folder(may_build=False) is None
    assert not (tmp_path / "cache").exists()


def test_a_build_that_fails_says_why_and_leaves_nothing(library: Library, tmp_path: Path) -> None:
    def build(work: Path) -> Mapping[str, Path]:
        run_tool(["/bin/sh", "-c", "echo no such thing >&2; exit 3"], work, {}, "a library")
        return {}

    with pytest.raises(SpawnFailed) as caught:
        Sysroot("broken", "a library", 1, list, build).folder()
    assert "no such thing" in str(caught.value)
    assert [path.name for path in (tmp_path / "cache/broken").iterdir()] == ["lock"]


def test_a_build_sees_nothing_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPATH", "/nowhere")
    said, _ = run_tool(["/usr/bin/env"], tmp_path, {"OWN": "1"}, "a list")
    assert sorted(line.split("=")[0] for line in said.splitlines()) == ["HOME", "OWN", "PATH", "TMPDIR"]


def test_without_ziglang_the_command_says_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNVISOR_CACHE", str(tmp_path))
    monkeypatch.setattr(ziglang, "find", lambda: None)
    assert main([]) == 0
    assert "runvisor[compilers]" in capsys.readouterr().out
    assert main(["--nonsense"]) == 2
    with pytest.raises(ConfigError) as caught:
        ziglang.LIBC.folder()
    assert "runvisor[compilers]" in caught.value.remedy
