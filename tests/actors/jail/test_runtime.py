"""A jailed runtime as its pool uses it: who waits for a child, and who does not any more."""

from __future__ import annotations

import threading
import time

import pytest

from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.runtime import PoolSize
from runvisor.policies.errors import Cancelled
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.executing import Heard
from tests.actors.jail.conftest import TESTS_FOLDER

pytestmark = pytest.mark.root


def test_a_task_that_is_called_off_while_it_waits_ends_at_once_and_never_starts(partner: JailedRuntime) -> None:
    del partner  # only says whether there is a jail here
    spec = JailSpec("partner", "actors.jail.partner", import_from=(TESTS_FOLDER,))
    runtime = JailedRuntime("partner", spec, PoolSize(minimum=1, maximum=1, wait_s=600.0))
    runtime.start()
    try:
        session = runtime.open_session(Task("-", "python"), "native", grant())  # the only child
        waiting, caught = Heard(), list[Exception]()

        def ask() -> None:
            try:
                runtime.execute(Task("value = 1", "python"), "native", grant(), waiting.watch)
            except Cancelled as error:
                caught.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        deadline = time.monotonic() + 20
        while runtime.load().waiting != 1:
            assert time.monotonic() < deadline
        waiting.watch.cancellation.cancel()
        thread.join(20)
        assert len(caught) == 1
        assert waiting.starts == 0
        assert (runtime.load().busy, runtime.load().waiting) == (1, 0)
        session.close()
    finally:
        runtime.close()


def grant() -> Grant:
    return Grant("tester", Trust.UNTRUSTED, Permissions())
