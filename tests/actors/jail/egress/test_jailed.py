"""A networked child of a real zygote, under every layer of the jail at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from runvisor.actors.jail import cgroups
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.egress.cgroup_probe import find_obstacle
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.records import EgressRecord
from runvisor.actors.jail.mounts import View
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import EGRESS_FILTER, JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.permissions import MiB
from tests.actors.jail.egress.world import Upstream, World
from tests.ordinary_user import run_as_ordinary_user

TESTS_FOLDER = str(Path(__file__).resolve().parents[3])
Run = Callable[[str, str], object]
PLAN = NetworkPlan.of(("allowed.test",))
needs_filter = pytest.mark.skipif(find_obstacle()[0] != "", reason=find_obstacle()[0])


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


@needs_filter
def test_a_networked_child_has_the_kernel_filter_and_its_doors_go_with_it(zygote: Zygote) -> None:
    with closing(zygote.spawn(memory_bytes=64 * MiB)) as plain, closing(spawn(zygote)) as first:
        assert EGRESS_FILTER in first.layers
        assert EGRESS_FILTER not in plain.layers
        before = doors(zygote)
        with closing(spawn(zygote)):
            own = doors(zygote) - before
            assert {door.port for door in own} == set(PLAN.ports)
            assert {door.network for door in own}.isdisjoint(door.network for door in before)
        assert doors(zygote) == before


@needs_filter
def test_a_zygote_takes_its_filter_along_and_needs_none_without_hosts() -> None:
    parent = cgroups.find_v2_parent()
    assert parent is not None
    before = set(parent.glob(f"runvisor-{os.getpid()}-*"))
    zygote = Zygote(JailSpec("prisoner", "actors.jail.prisoner", import_from=(TESTS_FOLDER,)))
    zygote.start()
    try:
        zygote.spawn(memory_bytes=64 * MiB)
        assert zygote._filtered is None
        child = spawn(zygote)
        assert EGRESS_FILTER in child.layers
    finally:
        zygote.close()
    assert set(parent.glob(f"runvisor-{os.getpid()}-*")) == before
    child.close()


@needs_filter
def test_children_with_a_v2_group_of_their_own_have_it_from_the_group_above() -> None:
    """So it is where all cgroups are of version 2, and here where the kernel is to know each child."""
    spec = JailSpec("prisoner", "actors.jail.prisoner", import_from=(TESTS_FOLDER,))
    parent = cgroups.find_v2_parent()
    assert parent is not None
    before = set(parent.glob(f"runvisor-{os.getpid()}-*"))
    zygote = Zygote(spec, identified=True)
    zygote.start()
    try:
        if zygote._group is None:
            pytest.skip("this user can make no group for each child")
        with closing(spawn(zygote)) as child:
            assert EGRESS_FILTER in child.layers
            assert child.identity is not None
            assert zygote._filtered is not None
            assert zygote._filtered.joins == ()
    finally:
        zygote.close()
    assert set(parent.glob(f"runvisor-{os.getpid()}-*")) == before


def test_a_child_that_is_promised_the_filter_and_has_it_not_does_not_say_so(
    zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each child looks for itself: what only it refuses is tried before the child is sealed."""

    nothing = SimpleNamespace(joins=(), filter=SimpleNamespace(admit=lambda cookie, ports: lambda: None))
    monkeypatch.setattr(zygote, "_filtered_group", lambda: nothing)
    child = spawn(zygote)
    assert EGRESS_FILTER not in child.layers
    child.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_who_may_not_use_bpf_has_hosts_without_it_and_hears_why() -> None:
    program = (
        "import json\n"
        "from runvisor.actors.jail.egress.plan import NetworkPlan\n"
        "from runvisor.actors.jail.mounts import View\n"
        "from runvisor.actors.jail.probe import probe_jail\n"
        "from runvisor.actors.jail.spec import JailSpec\n"
        "from runvisor.actors.jail.zygote import Zygote\n"
        f"zygote = Zygote(JailSpec('prisoner', 'actors.jail.prisoner', import_from=({TESTS_FOLDER!r},)))\n"
        "zygote.start()\n"
        "child = zygote.spawn(memory_bytes=1 << 26, view=View(), network=NetworkPlan.of(('a.test',)))\n"
        "probe = probe_jail('python')\n"
        "print(json.dumps([child.layers, len(child.listeners), probe.detail, probe.remedy]))\n"
        "child.close()\nzygote.close()\n"
    )
    ran = run_as_ordinary_user(["-c", program], user_namespaces=True)
    layers, listeners, detail, remedy = json.loads(ran.stdout)
    assert EGRESS_FILTER not in layers
    assert listeners == len(NetworkPlan.of(("a.test",)).ports)
    assert f"no {EGRESS_FILTER} (" in detail
    assert f"for the {EGRESS_FILTER}: " in remedy


def spawn(zygote: Zygote) -> Child:
    return zygote.spawn(memory_bytes=64 * MiB, view=View(), network=PLAN)


@dataclass(frozen=True)
class Door:
    network: int
    port: int


def doors(zygote: Zygote) -> set[Door]:
    """Read what is admitted now."""
    assert zygote._filtered is not None
    keys = [key for key, _ in zygote._filtered.filter._doors.items()]
    return {Door(int.from_bytes(key[:8], "little"), int.from_bytes(key[8:10], "big")) for key in keys}


LISTENING = """
def listening():
    found = []
    for fd in range(256):
        try:
            copy = os.dup(fd)
        except OSError:
            continue
        try:
            sock = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue
        with sock:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(fd)
    return found
"""


def test_no_listener_is_left_inside(run: Run) -> None:
    assert run(LISTENING, "listening()") == []
