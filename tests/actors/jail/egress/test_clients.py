"""Programs that know nothing of runvisor, in a process of their own with a network of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.records import EgressRecord
from tests.actors.jail.egress.world import Upstream, World

PATTERNS = ("allowed.test", "allowed.test:7", "*.wild.test")
Run = Callable[[str], str]


@pytest.fixture(scope="module")
def records() -> list[EgressRecord]:
    return []


@pytest.fixture(scope="module")
def run(outside: World, records: list[EgressRecord]) -> Iterator[Run]:
    """Run code in one confined process; returns what it left in ``answer``, or its error."""
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    program = Path(__file__).with_name("confined.py")
    child = subprocess.Popen(
        [sys.executable, str(program), str(theirs.fileno()), json.dumps(PATTERNS), str(outside.certificate)],
        pass_fds=(theirs.fileno(),),
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
    )
    with contextlib.ExitStack() as stack:
        stack.callback(child.wait, 10)
        stack.callback(child.kill)
        stack.enter_context(ours)
        theirs.close()
        _, listeners, _, _ = socket.recv_fds(ours, 1, 64)
        plan = NetworkPlan.of(PATTERNS)
        stack.enter_context(outside.broker.open(plan, listeners, on_record=records.append))

        def run(code: str) -> str:
            ours.sendall(code.encode())
            return ours.recv(1 << 16).decode()

        yield run


URLS = ["http://allowed.test/", "https://allowed.test/", "http://a.wild.test/", "https://a.wild.test/x?y"]


@pytest.mark.parametrize("url", URLS)
def test_urllib_works_unchanged(run: Run, url: str) -> None:
    assert run(f"import urllib.request; answer = urllib.request.urlopen({url!r}).read()") == "b'hello'"


@pytest.mark.parametrize("url", URLS)
def test_requests_works_unchanged(run: Run, url: str) -> None:
    pytest.importorskip("requests")
    assert run(f"import requests; answer = requests.get({url!r}).text") == "hello"


@pytest.mark.parametrize("url", URLS)
def test_httpx_works_unchanged_blocking_and_not(run: Run, url: str) -> None:
    pytest.importorskip("httpx")
    assert run(f"import httpx; answer = httpx.get({url!r}).text") == "hello"
    code = f"""
import asyncio, httpx
async def main():
    async with httpx.AsyncClient() as client:
        return [reply.text for reply in await asyncio.gather(*(client.get({url!r}) for _ in range(5)))]
answer = asyncio.run(main())
"""
    assert run(code) == str(["hello"] * 5)


def test_a_session_asks_again_and_again(run: Run) -> None:
    pytest.importorskip("requests")
    code = "import requests; s = requests.Session(); answer = {s.get('http://allowed.test/').text for _ in range(5)}"
    assert run(code) == "{'hello'}"


@pytest.mark.parametrize(("module", "kind"), [("http.client", "HTTPConnection"), ("http.client", "HTTPSConnection")])
def test_a_client_that_knows_of_no_proxy_works(run: Run, module: str, kind: str) -> None:
    code = f"import {module} as m; c = m.{kind}('allowed.test', timeout=9); c.request('GET', '/');"
    assert run(code + "answer = c.getresponse().read()") == "b'hello'"


def test_sockets_by_name_and_asyncio_work(run: Run) -> None:
    code = "import socket; s = socket.create_connection(('allowed.test', 7)); answer = s.recv(99)"
    assert run(code) == "b'220 ready\\r\\n'"
    code = """
import asyncio
async def main():
    reader, writer = await asyncio.open_connection("allowed.test", 443, ssl=True)
    writer.write(b"GET / HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n")
    answer = await reader.readuntil(b"hello")
    writer.close()
    return answer[-5:]
answer = asyncio.run(main())
"""
    assert run(code) == "b'hello'"


def test_a_host_that_is_not_granted_is_refused_with_the_reason(
    run: Run, canary: Upstream, records: list[EgressRecord]
) -> None:
    fetch = "import urllib.request; urllib.request.urlopen({!r})"
    reason = "evil.test:{} is not in network.allowed_hosts"
    assert run(fetch.format("http://evil.test/")) == f"HTTPError: HTTP Error 403: Forbidden: {reason.format(80)}"
    assert reason.format(443) in run(fetch.format("https://evil.test/"))
    assert {(record.host, record.port) for record in records if record.step == "denied"} == {
        ("evil.test", 80),
        ("evil.test", 443),
    }
    assert run("import socket; socket.create_connection(('evil.test', 80))").startswith("gaierror")


def test_names_are_never_asked_for_inside(run: Run) -> None:
    assert run("import socket; answer = socket.gethostbyname('allowed.test')") == "127.1.0.1"
    every_kind = "import socket; answer = {entry[4] for entry in socket.getaddrinfo('allowed.test', 443)}"
    assert run(every_kind) == "{('127.1.0.1', 443)}"
    for name in ("a.wild.test", "metadata.google.internal", "x." * 60 + "test"):
        assert run(f"import socket; socket.getaddrinfo({name!r}, 443)").startswith("gaierror")


@pytest.mark.parametrize(
    "arguments",
    ["AF_INET, SOCK_DGRAM", "AF_INET6, SOCK_STREAM", "AF_NETLINK, SOCK_RAW", "AF_PACKET, SOCK_RAW",
     "AF_UNIX, SOCK_STREAM",
     "AF_INET, SOCK_RAW, 1", "AF_INET, SOCK_STREAM, 262", "AF_INET, SOCK_STREAM, 132", "AF_VSOCK, SOCK_STREAM"],
)  # fmt: skip
def test_there_is_no_other_kind_of_socket(run: Run, arguments: str) -> None:
    assert run(f"from socket import *; socket({arguments})").startswith("PermissionError")


def test_nothing_can_be_offered_and_only_the_plans_ports_be_connected_to(run: Run) -> None:
    assert run("import socket; socket.create_server(('127.0.0.1', 0))").startswith("PermissionError")
    for place in (("127.0.0.1", 22), ("127.1.0.1", 8080), ("8.8.8.8", 53)):
        assert run(f"import socket; socket.create_connection({place})").startswith("PermissionError")
    assert "unreachable" in run("import socket; socket.create_connection(('8.8.8.8', 443))")
