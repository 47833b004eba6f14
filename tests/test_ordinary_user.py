"""The suites that need no root, run by an ordinary user: with user namespaces, and without them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Final

import pytest

from tests.ordinary_user import TESTS, run_as_ordinary_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

JAIL: Final = ("actors/jail/test_zygote.py", "actors/jail/test_granted_files.py", "actors/jail/test_staging.py")
RUNTIMES: Final = ("actors/python/test_runtime.py", "actors/v8/test_runtime.py", "actors/wasm/test_runtime.py")
ATTACKS: Final = ("escapes",)
SAMPLE: Final = ("escapes/test_python.py", "escapes/test_javascript.py")
SAMPLED: Final = "signal_others or host_files or fork or disk_deep or memory_private or threads or array_buffers"
"""What only a layer that is missing here would stop as root: the other ones and the limits must do."""


def run_suites(suites: tuple[str, ...], *, user_namespaces: bool, only: str = "") -> str:
    """Run suites as an ordinary user, who must find nothing wrong; return what pytest said."""
    options = ["-q", "-p", "no:cacheprovider", "-c", str(TESTS.parent / "pyproject.toml")]
    options += ["--rootdir", str(TESTS.parent), *(["-k", only] if only else [])]
    paths = [str(Path(TESTS, suite)) for suite in suites]
    ran = run_as_ordinary_user(["-m", "pytest", *options, *paths], user_namespaces=user_namespaces, timeout_s=500)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    return ran.stdout


def passed(said: str) -> int:
    """Read how many tests passed."""
    found = re.search(r"(\d+) passed", said)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("user_namespaces", [True, False])
def test_the_jail(user_namespaces: bool) -> None:
    assert passed(run_suites(JAIL, user_namespaces=user_namespaces)) > 0


@pytest.mark.parametrize("user_namespaces", [True, False])
def test_a_sample_of_the_attacks(user_namespaces: bool) -> None:
    assert passed(run_suites(SAMPLE, user_namespaces=user_namespaces, only=SAMPLED)) >= len(SAMPLED.split(" or "))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("user_namespaces", [True, False])
def test_all_attacks_end_as_the_layers_at_hand_make_them(user_namespaces: bool) -> None:
    """Root runs them in `tests/escapes` itself; each says there how it ends where a layer is missing."""
    assert passed(run_suites(ATTACKS, user_namespaces=user_namespaces)) > 250


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user_namespaces", "missing", "remedy"),
    [(True, "memory by rlimits", "memory cgroup"), (False, "for want of: pid namespace", "allow user namespaces")],
)
def test_the_doctor_says_in_one_line_what_is_missing_and_how_to_get_it(
    user_namespaces: bool, missing: str, remedy: str
) -> None:
    program = "from runvisor.supervisor.cli.main import run; run()"
    ran = run_as_ordinary_user(["-c", program, "doctor", "--json"], user_namespaces=user_namespaces)
    said = {finding["runtime"]: finding for finding in json.loads(ran.stdout)["runtimes"]}
    for name in ("python", "v8"):
        assert said[name]["works"]
        assert missing in said[name]["detail"]
        assert remedy in said[name]["remedy"]
        assert "\n" not in said[name]["detail"] + said[name]["remedy"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("user_namespaces", [True, False])
def test_the_runtimes(user_namespaces: bool) -> None:
    assert passed(run_suites(RUNTIMES, user_namespaces=user_namespaces)) > 0
