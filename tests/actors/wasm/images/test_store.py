from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from runvisor.actors.wasm.images import recipes, store
from runvisor.actors.wasm.images.recipes import Built, Tell
from runvisor.actors.wasm.images.store import build_image, find_image, read_image
from runvisor.policies.errors import ConfigError


class Recipe:
    """A recipe that builds at once; what it is told to build is its attributes."""

    text = b"hello"
    builds = 0

    def version(self) -> str:
        return self.text.decode()

    def build(self, work: Path, tell: Tell) -> Built:
        assert list(work.iterdir()) == []
        tell("building", 0.5)
        self.builds += 1
        return Built({"image.wasm": self.text}, {"heap": 4096})


@pytest.fixture
def greeting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Recipe]:
    recipe = Recipe()
    monkeypatch.setenv("RUNVISOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(recipes.RECIPES, "greeting", "greeting")  # type: ignore[arg-type]
    monkeypatch.setattr(recipes, "importlib", SimpleNamespace(import_module=lambda name: recipe))
    store._key.cache_clear()
    yield recipe
    store._key.cache_clear()


def ignore(doing: str, done: float) -> None:
    pass


def test_an_image_is_built_once_and_found_then(greeting: Recipe) -> None:
    assert find_image("greeting") is None
    folder = build_image("greeting", ignore)
    assert build_image("greeting", ignore) == folder == find_image("greeting")
    assert greeting.builds == 1
    data, manifest = read_image("greeting", "image.wasm")
    assert data == b"hello"
    assert manifest.facts == {"heap": 4096}
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # nothing of the building is left


def test_an_image_of_another_version_is_not_found(greeting: Recipe) -> None:
    build_image("greeting", ignore)
    greeting.text = b"hello again"
    store._key.cache_clear()
    assert find_image("greeting") is None


def test_old_versions_are_deleted_but_for_a_few(greeting: Recipe) -> None:
    for number in range(6):
        greeting.text = b"%d" % number
        store._key.cache_clear()
        folder = build_image("greeting", ignore)
    assert folder.is_dir()
    assert len(list(folder.parent.iterdir())) == 4


def test_a_changed_image_is_refused_with_the_way_to_a_new_one(greeting: Recipe) -> None:
    folder = build_image("greeting", ignore)
    (folder / "image.wasm").write_bytes(b"HELLO")
    with pytest.raises(ConfigError, match="not as it was built") as raised:
        read_image("greeting", "image.wasm")
    assert "runvisor.actors.wasm.images greeting" in raised.value.remedy


def test_a_damaged_manifest_is_refused(greeting: Recipe) -> None:
    folder = build_image("greeting", ignore)
    (folder / "manifest.json").write_text('{"files": {"../image.wasm": ""}, "facts": {}}')
    with pytest.raises(ConfigError, match="damaged"):
        read_image("greeting", "image.wasm")


def test_an_image_that_others_could_have_written_is_refused(greeting: Recipe) -> None:
    folder = build_image("greeting", ignore)
    folder.parent.chmod(0o770)
    with pytest.raises(ConfigError, match="written by others"):
        read_image("greeting", "image.wasm")


def test_an_image_that_was_not_built_says_how_to(greeting: Recipe) -> None:
    with pytest.raises(ConfigError, match="not built") as raised:
        read_image("greeting", "image.wasm")
    assert raised.value.remedy == recipes.remedy("greeting")


def test_an_unknown_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="no image nonsense"):
        find_image("nonsense")
