"""The guest's process around its task."""

from __future__ import annotations

import signal

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.permissions import MiB
from tests.actors.python.driving import REPLY_TIMEOUT_S, first_frame

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]


def test_a_guest_that_has_answered_waits_for_its_end(science: Zygote) -> None:
    child = science.spawn(memory_bytes=512 * MiB)
    try:
        child.channel.settimeout(REPLY_TIMEOUT_S)
        child.channel.send(first_frame(code="1 + 1"))
        assert [(child.channel.receive() or {})["op"] for _ in range(2)] == ["started", "value"]
        assert child.exit(timeout_s=0.3) is None
    finally:
        child.close()
    end = child.exit()
    assert end is not None
    assert end.signal == signal.SIGKILL
