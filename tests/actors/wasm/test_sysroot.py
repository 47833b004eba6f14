"""The kept C library: whole, private, or not used. (Building it is left to the tests of C.)"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from runvisor.actors.wasm import sysroot
from runvisor.actors.wasm.c_guest import LIBC_FILES
from runvisor.policies.errors import ConfigError

pytestmark = pytest.mark.skipif(sysroot.find_ziglang() is None, reason=sysroot.REMEDY)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that holds files which nothing built."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("RUNVISOR_CACHE", str(tmp_path))
    monkeypatch.setattr(sysroot, "_loaded", {})
    folder = tmp_path / "zig" / sysroot._version()
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    for name in LIBC_FILES:
        (folder / name).write_bytes(name.encode())
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in LIBC_FILES}
    (folder / "manifest.json").write_text(json.dumps(digests))
    return folder


def load() -> Mapping[str, bytes] | None:
    return sysroot.libc(may_build=False)


def test_whole_files_are_used(kept: Path) -> None:
    files = load()
    assert files is not None
    assert files["libc.a"] == b"libc.a"
    assert sysroot.main() == 0


def test_a_damaged_or_missing_file_is_not_used(kept: Path) -> None:
    (kept / "libc.a").write_bytes(b"other")
    assert load() is None
    (kept / "libc.a").unlink()
    assert load() is None


@pytest.mark.parametrize("manifest", ["", "[]", "{}", "null"])
def test_a_damaged_manifest_is_not_believed(kept: Path, manifest: str) -> None:
    (kept / "manifest.json").write_text(manifest)
    assert load() is None


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_folder_that_others_can_write_to_is_refused(kept: Path, levels: int) -> None:
    place = [kept, kept.parent, kept.parent.parent][levels]
    place.chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        load()
    assert "0700" in caught.value.remedy


def test_nothing_is_built_where_that_is_not_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNVISOR_CACHE", str(tmp_path / "none"))
    assert load() is None
    assert not (tmp_path / "none").exists()


def test_without_ziglang_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysroot, "find_ziglang", lambda: None)
    with pytest.raises(ConfigError) as caught:
        load()
    assert "runvisor[compilers]" in caught.value.remedy
