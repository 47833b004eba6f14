"""The package as others meet it: one copy of each module, public names, pinned dependencies."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import runvisor

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("policies", "actors", "supervisor")


def python(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_is_linked_into_the_package_by_a_relative_link(folder: str) -> None:
    link = ROOT / "src/runvisor" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("../..") / folder
    assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bare_name_is_refused_even_with_the_repository_on_the_path(folder: str) -> None:
    refused = python("-c", f"import {folder}")
    assert refused.returncode == 1
    assert f"ImportError: import it as 'runvisor.{folder}'" in refused.stderr


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_package_holds_each_folder_under_its_full_name(folder: str) -> None:
    assert importlib.import_module(f"runvisor.{folder}").__name__ == f"runvisor.{folder}"


def test_no_module_is_loaded_under_two_names() -> None:
    loaded: dict[Path, str] = {}
    for name, module in sorted(sys.modules.items()):
        source = getattr(module, "__file__", None)
        if source and (name.startswith("runvisor") or Path(source).is_relative_to(ROOT / "src")):
            assert loaded.setdefault(Path(source).resolve(), name) == name


def test_every_public_name_exists_and_dir_shows_it() -> None:
    assert len(set(runvisor.__all__)) == len(runvisor.__all__) > 0
    assert set(runvisor.__all__) <= set(dir(runvisor))
    for name in runvisor.__all__:
        assert getattr(runvisor, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "no_such_name"
    with pytest.raises(AttributeError, match=name):
        getattr(runvisor, name)


def test_importing_the_package_loads_nothing_heavy() -> None:
    # A sandbox child imports leaves of the package; Ray has no place there.
    listing = python("-c", "import runvisor, runvisor.policies, sys; print(*sys.modules)", cwd=Path("/"))
    assert listing.returncode == 0, listing.stderr
    assert not {"ray", "numpy", "sklearn", "wasmtime", "py_mini_racer"} & set(listing.stdout.split())


def test_the_console_command_is_installed() -> None:
    shown = subprocess.run(
        [Path(sys.executable).with_name("runvisor"), "--help"], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "run" in shown.stdout


def locked() -> dict[str, str]:
    """Each requirement of the lock with its hashes, by name."""
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z0-9])", "\n" + re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
    return {entry.strip().partition("==")[0]: entry for entry in entries if entry.strip()}


NOT_SET_UP = {"go"}
"""Extras for those who ask for them: large, and set-up does not install them."""


def test_the_lock_pins_everything_that_set_up_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name not in NOT_SET_UP}
    declared = [*project["dependencies"], *(line for lines in extras.values() for line in lines)]
    names = {re.split(r"[\[<>=~! ;]", line)[0].lower() for line in declared} - {"runvisor"}
    assert names <= set(locked())


def test_every_pin_of_the_lock_has_hashes() -> None:
    for name, entry in locked().items():
        assert re.match(rf"{name}==[0-9][^ ]*( ;[^\\]*)? \\\n", entry.lstrip()), entry
        assert "--hash=sha256:" in entry


def test_the_lock_names_no_index_and_no_place() -> None:
    text = (ROOT / "requirements.lock").read_text()
    for sign in ("://", "--index", "--extra-index", "--find-links", "--trusted-host", " @ ", "file:"):
        assert sign not in text
