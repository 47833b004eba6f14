"""Errors that the sandbox caused say what to ask for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.python.remedies import remedy_for
from tests.actors.python.driving import Answer

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
Task = Callable[..., Answer]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import socket\nsocket.socket()", "network.allowed_hosts"),
        ("import socket\nsocket.create_connection(('example.org', 80))", "network.allowed_hosts"),
        ("import urllib.request\nurllib.request.urlopen('http://example.org')", "network.allowed_hosts"),
        ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1')", "network.allowed_hosts"),
        ("import pandas as pd\npd.read_csv('https://example.org/data.csv')", "network.allowed_hosts"),
        ("import os\nos.fork()", "processes"),
        ("import os\nos.execv('/bin/true', ['true'])", "processes"),
        ("import subprocess\nsubprocess.run(['true'])", "processes"),
        ("import subprocess\nsubprocess.check_output('ls', shell=True)", "processes"),
        ("import multiprocessing\nmultiprocessing.Process(target=print).start()", "processes"),
        ("import multiprocessing\nmultiprocessing.Pool(2)", "processes"),
        ("open('/etc/shadow').read()", "filesystem.read"),
        ("open('/home/me/data.csv')", "filesystem.read"),
        ("import os\nos.listdir('/')", "filesystem.read"),
        ("import os\nopen(os.__file__, 'a')", "filesystem.write"),
        ("open('data.csv')", "lie in /in"),
        ("import pandas as pd\npd.read_csv('data.csv')", "lie in /in"),
        ("input('name?')", "inputs"),
        ("f = open('/tmp/f', 'wb')\nwhile True: f.write(bytes(1 << 20))", "disk_bytes"),
        ("import no_such_package", "no_such_package is not installed"),
        ("import no_such_package.sub", "no_such_package is not installed"),
        ("import cv2", "opencv-python-headless"),
        ("import numpy.no_such", "numpy is installed"),
    ],
)
def test_a_refusal_names_its_permission(task: Task, code: str, said: str) -> None:
    answer = task(code)
    assert answer.error == "GuestException"
    assert said in answer.remedy


@pytest.mark.parametrize("code", ["1 / 0", "raise OSError('mine')", "raise PermissionError", "{}['fork']"])
def test_the_guests_own_errors_have_none(task: Task, code: str) -> None:
    assert task(code).remedy == ""


def test_a_package_of_another_profile_is_said_to_be_there() -> None:
    assert remedy_for(ModuleNotFoundError("", name="torch.nn"), {"torch": "deep"}) == (
        "the profile 'deep' has torch; run the task with profile='deep'"
    )


def test_a_hostile_exception_has_no_remedy() -> None:
    class Hostile(OSError):
        @property
        def errno(self) -> int:  # type: ignore[override]
            raise RuntimeError

    assert remedy_for(Hostile(), {}) == ""
