"""Profiles: what a zygote has loaded, and from which environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.python.profiles import BARE, PROFILES, SCIENCE, PythonProfile, all_profiles, elsewhere
from runvisor.actors.python.runtime import PythonRuntime, spec_of
from runvisor.policies.errors import ConfigError, SpawnFailed, UnknownProfile
from tests.actors.python.driving import run_task

needs_jail = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with two packages, one of which shadows one beside runvisor."""
    folder = tmp_path_factory.mktemp("environments") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = PythonProfile("own", venv=folder).site_packages()
    Path(site, "greeting.py").write_text("loaded = 1\ndef hello():\n    return 'hello'\n")
    Path(site, "yaml.py").write_text("mine = True\n")
    Path(site, "greeting-1.0.dist-info").mkdir()
    return folder


@pytest.fixture(scope="module")
def own(venv: Path) -> Iterator[Zygote]:
    zygote = Zygote(spec_of(PythonProfile("own", packages=("greeting",), venv=venv)))
    try:
        zygote.start()
        yield zygote
    finally:
        zygote.close()


class TestInTheJail:
    pytestmark = needs_jail

    def test_its_packages_are_loaded_before_a_task_arrives(self, own: Zygote) -> None:
        assert run_task(own, "import sys\n'greeting' in sys.modules").value is True
        assert run_task(own, "import greeting\ngreeting.hello()").value == "hello"

    def test_its_environment_comes_before_the_packages_beside_runvisor(self, own: Zygote) -> None:
        assert run_task(own, "import yaml\nyaml.mine").value is True
        assert run_task(own, "import numpy\nnumpy.add(1, 1)").value == 2

    def test_its_environment_cannot_be_changed(self, own: Zygote) -> None:
        answer = run_task(own, "import greeting\nopen(greeting.__file__, 'a')")
        assert answer.what.startswith(("PermissionError", "OSError"))

    def test_the_environment_is_not_taken_for_the_tasks_own_files(self, own: Zygote) -> None:
        answer = run_task(own, "import greeting\ngreeting.hello(1)")
        assert "greeting.py" not in answer.traceback
        assert answer.where == "line 2"

    def test_a_missing_package_is_found_in_the_profile_that_has_it(self, venv: Path) -> None:
        own = PythonProfile("own", venv=venv)
        zygote = Zygote(spec_of(BARE, others=[BARE, own]))
        try:
            zygote.start()
            answer = run_task(zygote, "import greeting")
            assert answer.remedy == "the profile 'own' has greeting; run the task with profile='own'"
        finally:
            zygote.close()

    def test_a_package_that_is_missing_stops_the_start(self, venv: Path) -> None:
        zygote = Zygote(spec_of(PythonProfile("own", packages=("no_such_package",), venv=venv)))
        with pytest.raises(SpawnFailed, match="no_such_package"):
            zygote.start()
        zygote.close()

    def test_the_bare_profile_has_loaded_nothing_but_can_import_all(self) -> None:
        zygote = Zygote(spec_of(BARE))
        try:
            zygote.start()
            assert run_task(zygote, "import sys\n'numpy' in sys.modules").value is False
            answer = run_task(zygote, "import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()")
            assert next(iter(answer.artifacts)) == "figure-1.png"
            assert answer.stderr == ""
        finally:
            zygote.close()


def test_the_profiles_are_the_two_that_come_with_runvisor() -> None:
    assert PROFILES == {"bare": BARE, "science": SCIENCE}


def test_a_profile_knows_what_only_it_has(venv: Path) -> None:
    own = PythonProfile("own", venv=venv)
    assert own.provides() == {"greeting", "yaml"}
    assert elsewhere(BARE, [own, SCIENCE]) == {"greeting": "own", "yaml": "own"}
    assert elsewhere(own, [own]) == {}


@pytest.mark.parametrize(
    ("name", "packages", "where"),
    [
        ("Up", (), "name"),
        ("", (), "name"),
        ("a/b", (), "name"),
        ("x" * 40, (), "name"),
        ("own", "numpy", "packages"),
        ("own", ("os; 1",), "packages"),
        ("own", ("",), "packages"),
    ],
)
def test_what_is_no_profile_is_refused(name: str, packages: tuple[str, ...], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PythonProfile(name, packages)
    assert caught.value.where == where


def test_a_folder_that_is_no_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a virtual environment"):
        PythonRuntime(profile=PythonProfile("own", venv=tmp_path))
    (tmp_path / "pyvenv.cfg").touch()
    (tmp_path / "lib/python2.7/site-packages").mkdir(parents=True)
    with pytest.raises(ConfigError, match="holds no packages for python3"):
        PythonRuntime(profile=PythonProfile("own", venv=tmp_path))


def test_two_profiles_of_one_name_are_refused_and_one_may_replace_ours() -> None:
    with pytest.raises(ConfigError, match="two profiles are named 'own'"):
        all_profiles(PythonProfile("own"), [PythonProfile("own", ("json",))])
    assert all_profiles("science", [PythonProfile("bare", ("json",))])["bare"].packages == ("json",)


def test_a_name_that_no_profile_has_is_refused() -> None:
    with pytest.raises(UnknownProfile, match="choose one of bare, science"):
        PythonRuntime(profile="sience")
