"""The suites that need no root, run by an ordinary user: with user namespaces, and without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ordinary_user import TESTS, run_as_ordinary_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

JAIL = ("actors/jail/test_zygote.py", "actors/jail/test_granted_files.py", "actors/jail/test_staging.py")
RUNTIMES = ("actors/python/test_runtime.py", "actors/v8/test_runtime.py", "actors/wasm/test_runtime.py")


def run_suites(suites: tuple[str, ...], *, user_namespaces: bool) -> str:
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(TESTS.parent / "pyproject.toml"),
        "--rootdir",
        str(TESTS.parent),
    ]
    paths = [str(Path(TESTS, suite)) for suite in suites]
    ran = run_as_ordinary_user(["-m", "pytest", *options, *paths], user_namespaces=user_namespaces, timeout_s=300)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.parametrize("user_namespaces", [True, False])
def test_the_jail(user_namespaces: bool) -> None:
    assert " passed" in run_suites(JAIL, user_namespaces=user_namespaces)


@pytest.mark.slow
@pytest.mark.parametrize("user_namespaces", [True, False])
def test_the_runtimes(user_namespaces: bool) -> None:
    assert " passed" in run_suites(RUNTIMES, user_namespaces=user_namespaces)
