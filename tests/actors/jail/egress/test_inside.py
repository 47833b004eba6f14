"""The child's own loopback interface and listeners."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.plan import NetworkPlan

PLAN = NetworkPlan.of(("a.test", "10.1.2.3:81"))


@pytest.fixture
def thread() -> ThreadPoolExecutor:
    """A thread with an unused network of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    executor = ThreadPoolExecutor(1)
    executor.submit(kernel.unshare, kernel.CLONE_NEWNET).result()
    return executor


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_the_machines_own_network_is_left_alone() -> None:
    before = _descriptors()
    with pytest.raises(OSError, match="not the caller's own"):
        inside.prepare(PLAN)
    assert _descriptors() <= before


def test_there_is_one_listener_per_port_and_it_outlives_its_process(thread: ThreadPoolExecutor) -> None:
    listeners = thread.submit(inside.prepare, PLAN).result()
    assert tuple(listener.getsockname()[1] for listener in listeners) == PLAN.ports
    assert not any(listener.get_inheritable() for listener in listeners)
    for address, port in (("127.1.0.1", 80), ("127.0.0.1", PLAN.proxy_port), ("10.1.2.3", 81)):
        client = thread.submit(socket.create_connection, (address, port), 5).result()
        server, _ = listeners[PLAN.ports.index(port)].accept()
        assert server.getsockname() == (address, port)
        client.close()
        server.close()
    with pytest.raises(OSError, match="unreachable"):  # a granted address brings no network along
        thread.submit(socket.create_connection, ("10.1.2.4", 81), 5).result()
    for listener in listeners:
        listener.close()


def test_what_cannot_be_had_leaves_nothing_open(thread: ThreadPoolExecutor) -> None:
    taken = thread.submit(socket.create_server, ("0.0.0.0", 443)).result()
    before = _descriptors()
    with pytest.raises(OSError, match="in use"):
        thread.submit(inside.prepare, PLAN).result()
    assert _descriptors() <= before
    taken.close()
