"""A networked child of a real zygote, under every layer of the jail at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.records import EgressRecord
from runvisor.actors.jail.mounts import View
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.permissions import MiB
from tests.actors.jail.egress.world import Upstream, World

TESTS_FOLDER = str(Path(__file__).resolve().parents[3])
Run = Callable[[str, str], object]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    zygote = Zygote(JailSpec("prisoner", "actors.jail.prisoner", import_from=(TESTS_FOLDER,)))
    zygote.start()
    yield zygote
    zygote.close()


@pytest.fixture(scope="module")
def run(outside: World, zygote: Zygote) -> Iterator[Run]:
    """Run statements in one child, and return the value of an expression there, or the name of its error."""
    plan = NetworkPlan.of(("allowed.test", "*.wild.test", "allowed.test:7"))
    child = zygote.spawn(memory_bytes=256 * MiB, view=View(), network=plan)
    listeners, child.listeners = child.listeners, []
    with outside.broker.open(plan, listeners, on_record=list[EgressRecord]().append):

        def run(do: str, value: str) -> object:
            child.channel.send({"do": do, "value": value})
            answer = child.channel.receive()
            assert answer is not None
            return answer["value"] if "value" in answer else answer["error"]

        run("import os, socket, urllib.request; os.environ.update(" + repr(dict(plan.environment)) + ")", "0")
        yield run
    child.close()


def test_granted_hosts_answer_by_proxy_and_by_name(run: Run) -> None:
    for host in ("allowed.test", "a.wild.test"):
        assert run("", f"urllib.request.urlopen('http://{host}/').read()") == b"hello"
    assert run("", "socket.create_connection(('allowed.test', 7)).recv(99)") == b"220 ready\r\n"
    assert run("", "socket.gethostbyname('allowed.test')") == "127.1.0.1"


@pytest.mark.parametrize(
    "attempt",
    [
        "urllib.request.urlopen('http://evil.test/')",
        "socket.create_connection(('evil.test', 80))",
        "socket.create_connection(('127.0.0.1', 22))",
        "socket.create_connection(('8.8.8.8', 443))",
        "socket.create_connection(('8.8.8.8', 53))",
        "socket.create_server(('127.0.0.1', 0))",
        "socket.socket(socket.AF_INET6)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "open('/etc/hosts', 'w')",
        "open('/etc/hosts', 'a')",
        "os.rename('/tmp', '/etc/hosts')",
    ],
)
def test_nothing_else_does(run: Run, canary: Upstream, attempt: str) -> None:
    refused = ("HTTPError", "gaierror", "PermissionError", "OSError", "FileNotFoundError", "ConnectionRefusedError")
    assert run("", f"({attempt}) and None") in refused


LISTENING = """
def listening():
    found = []
    for fd in range(256):
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        with sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(fd)
    return found
"""


def test_no_listener_is_left_inside(run: Run) -> None:
    assert run(LISTENING, "listening()") == []
