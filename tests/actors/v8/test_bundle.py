"""The generated bundle: what it is made of is listed, and making it again gives the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_V8 = _ROOT / "actors" / "v8"


def test_every_package_is_pinned_by_its_hash_and_listed_with_its_licence() -> None:
    packages = json.loads((_V8 / "web" / "package-lock.json").read_text())["packages"]
    licences = (_V8 / "bundle" / "LICENSES.md").read_text()
    for path, package in packages.items():
        if path:
            assert package["integrity"].startswith("sha512-")
        if path and not package.get("dev"):
            name = path.removeprefix("node_modules/")
            assert f"- {name} {package['version']}: {package['license']}" in licences
            assert f"\n## {name} {package['version']}\n" in licences


@pytest.mark.parametrize("path", [*_V8.glob("bundle/*.js"), *_V8.glob("parts/*.js")], ids=lambda path: path.name)
def test_every_part_is_ascii(path: Path) -> None:
    assert path.read_bytes().isascii()  # it crosses the bridge as bytes


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_bundle_is_reproducible() -> None:
    command = [_ROOT / "scripts" / "build-web", "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert checked.returncode == 0, checked.stderr
