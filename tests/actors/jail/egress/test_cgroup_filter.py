"""The kernel egress filter alone: each hook stops what gets through without it, and canaries on loopback decide."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest

from runvisor.actors.ebpf import cgroup_attach
from runvisor.actors.jail import cgroups
from runvisor.actors.jail.egress import cgroup_filter
from runvisor.actors.jail.egress.cgroup_filter import FilteredGroup, KernelFilter, netns_cookie
from runvisor.actors.jail.egress.cgroup_probe import find_obstacle
from runvisor.actors.jail.egress.cgroup_programs import HOOKS, Hook, door
from tests.actors.jail.egress.member import Member

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(find_obstacle()[0] != "", reason=find_obstacle()[0]),
]
BY_NAME: Final = {hook.name: hook for hook in HOOKS}
_sequence = itertools.count()

Make = Callable[..., tuple[FilteredGroup, Path]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make filtered groups that are removed after the test, with whoever is in them."""
    made: list[tuple[FilteredGroup, Path]] = []
    parent = cgroups.find_v2_parent()
    assert parent is not None

    def build(*hooks: Hook) -> tuple[FilteredGroup, Path]:
        name = cgroups.group_name(os.getpid(), next(_sequence), "filter-test")
        made.append((FilteredGroup.make(name, parent, hooks), parent / name))
        return made[-1]

    yield build
    for group, folder in made:
        with contextlib.suppress(FileNotFoundError):  # closed by the test
            for pid in (folder / "cgroup.procs").read_text().split():
                os.kill(int(pid), signal.SIGKILL)
        group.close()
        assert not folder.exists()


@pytest.fixture
def members() -> Iterator[Callable[[Path | None], Member]]:
    with contextlib.ExitStack() as stack:

        def join(folder: Path | None) -> Member:
            member = Member(folder)
            stack.callback(member.close)
            return member

        yield join


Join = Callable[[Path | None], Member]


@dataclass
class Bait:
    """Sockets of the machine that nothing in a group may reach."""

    sockets: dict[str, socket.socket] = field(default_factory=dict)

    def open(self, name: str, family: int, kind: int, address: object) -> None:
        sock = socket.socket(family, kind)
        self.sockets[name] = sock
        sock.bind(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_STREAM:
            sock.listen(16)

    def port(self, name: str) -> int:
        return int(self.sockets[name].getsockname()[1])

    def reached(self) -> list[str]:
        """Name what was reached since the last look."""
        found = []
        for name, sock in self.sockets.items():
            while select.select([sock], [], [], 0)[0]:
                found.append(name)
                if sock.type == socket.SOCK_STREAM:
                    sock.accept()[0].close()
                else:
                    sock.recv(100)
        return found

    def close(self) -> None:
        for sock in self.sockets.values():
            sock.close()


@pytest.fixture
def bait() -> Iterator[Bait]:
    bait = Bait()
    name = f"\0runvisor-filter-{os.getpid()}"
    try:
        bait.open("tcp", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        bait.open("udp", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        bait.open("unix", socket.AF_UNIX, socket.SOCK_STREAM, name)
        bait.open("letters", socket.AF_UNIX, socket.SOCK_DGRAM, f"{name}-letters")
        with contextlib.suppress(OSError):  # this machine has no IPv6
            bait.open("tcp6", socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0))
            bait.open("udp6", socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 0))
        yield bait
    finally:
        bait.close()


@dataclass(frozen=True, slots=True)
class Way:
    """A way out, the one hook that is there to stop it, and the bait at its end."""

    hook: str
    attempt: str
    bait: str


UNKNOWN: Final = replace(HOOKS[0], attach_type=999)
DGRAM, RAW = "socket.SOCK_DGRAM", "socket.SOCK_RAW"
WAYS: Final = [
    Way("socket", f"socket.socket(2, {RAW}, 17).sendto(datagram(PORT), ('127.0.0.1', 0)) > 0", "udp"),
    Way("socket", f"socket.socket(2, {DGRAM}).sendto(b'x', ('127.0.0.1', PORT)) > 0", "udp"),
    Way("socket", "socket.socket(2).connect(('127.0.0.1', PORT)) is None", "tcp"),
    Way("socket", "socket.socket(10).connect(('::1', PORT)) is None", "tcp6"),
    Way("connect4", "socket.socket(2).connect(('127.0.0.1', PORT)) is None", "tcp"),
    Way("connect4", "socket.socket(2).sendto(b'x', 0x20000000, ('127.0.0.1', PORT)) == 1", "tcp"),  # TCP Fast Open
    Way("connect6", "socket.socket(10).connect(('::1', PORT)) is None", "tcp6"),
    Way("connect6", "socket.socket(10).connect(('::ffff:127.0.0.1', PORT)) is None", "tcp"),
    Way("sendmsg4", f"socket.socket(2, {DGRAM}).sendto(b'x', ('127.0.0.1', PORT)) == 1", "udp"),
    Way("sendmsg4", f"socket.socket(10, {DGRAM}).sendto(b'x', ('::ffff:127.0.0.1', PORT)) == 1", "udp"),
    Way("sendmsg6", f"socket.socket(10, {DGRAM}).sendto(b'x', ('::1', PORT)) == 1", "udp6"),
    Way("packet", f"socket.socket(2, {DGRAM}).sendto(b'x', ('127.0.0.1', PORT)) == 1", "udp"),
    Way("packet", f"socket.socket(10, {DGRAM}).sendto(b'x', ('::1', PORT)) == 1", "udp6"),
    Way("packet", f"from_address(socket.socket(10, {DGRAM}), 'fc06::1').sendto(b'x', ('::1', PORT)) == 1", "udp6"),
    Way("packet", f"socket.socket(2, {RAW}, 17).sendto(datagram(PORT), ('127.0.0.1', 0)) > 0", "udp"),
    Way("connect_unix", "socket.socket(1).connect(NAME) is None", "unix"),
    Way("sendmsg_unix", f"socket.socket(1, {DGRAM}).sendto(b'x', NAME) == 1", "letters"),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.hook}: {way.attempt[:60]}")
def test_a_way_out_is_open_without_its_hook_and_shut_with_it(way: Way, make: Make, members: Join, bait: Bait) -> None:
    if way.bait not in bait.sockets:
        pytest.skip("this machine has no IPv6")
    place = bait.sockets[way.bait].getsockname()
    attempt = way.attempt.replace("PORT", str(place[1])).replace("NAME", repr(place))

    _, empty = make()
    assert members(empty).attempt(attempt) is True
    assert bait.reached() == [way.bait]

    group, filtered = make(BY_NAME[way.hook])
    if not attached(filtered, BY_NAME[way.hook]):
        pytest.skip("this kernel is older than the hook")
    assert members(filtered).attempt(attempt) == "EPERM"
    assert bait.reached() == []
    assert group.joins


def attached(folder: Path, hook: Hook) -> tuple[int, ...]:
    """Return what is attached to a group."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        return cgroup_attach.attached(fd, hook.attach_type)
    finally:
        os.close(fd)


def test_every_hook_has_a_way_that_it_shuts() -> None:
    assert {way.hook for way in WAYS} == set(BY_NAME)


def test_all_hooks_that_are_needed_are_attached_once(make: Make) -> None:
    _, folder = make(*HOOKS)
    assert [len(attached(folder, hook)) for hook in HOOKS if hook.is_required] == [1] * 6


def test_a_group_below_is_filtered_too(make: Make, members: Join, bait: Bait) -> None:
    """As on a machine with cgroups of version 2 alone, where each child has a group of its own."""
    _, folder = make(BY_NAME["connect4"])
    below = folder / "0"
    below.mkdir()
    member = members(below)
    try:
        assert member.attempt(f"socket.socket().connect(('127.0.0.1', {bait.port('tcp')}))") == "EPERM"
        assert bait.reached() == []
    finally:
        member.close()
        below.rmdir()


def test_it_does_not_reach_beyond_its_group(make: Make, members: Join, bait: Bait) -> None:
    make(*HOOKS)
    assert members(None).attempt(f"socket.socket().connect(('127.0.0.1', {bait.port('tcp')}))") is None
    assert bait.reached() == ["tcp"]


def test_a_door_is_for_one_port_of_one_network(make: Make, members: Join, bait: Bait) -> None:
    group, folder = make(BY_NAME["connect4"])
    member = members(folder)
    connect = "socket.socket(2, socket.SOCK_{kind}).connect(('127.0.0.1', {port}))"
    here, elsewhere = netns_cookie(bait.sockets["tcp"].fileno()), 1 << 63
    ways = [connect.format(kind="STREAM", port=bait.port("tcp")), connect.format(kind="DGRAM", port=bait.port("tcp"))]

    withdraw = group.filter.admit(elsewhere, [bait.port("tcp")])
    assert [member.attempt(way) for way in ways] == ["EPERM", "EPERM"]
    withdraw()
    withdraw = group.filter.admit(here, [bait.port("udp"), bait.port("tcp")])
    assert [member.attempt(way) for way in ways] == [None, "EPERM"]
    assert bait.reached() == ["tcp"]
    withdraw()
    withdraw()
    assert [member.attempt(way) for way in ways] == ["EPERM", "EPERM"]
    assert bait.reached() == []


def test_without_room_for_a_door_none_is_left_open(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup_filter, "_MAX_DOORS", 2)
    group, _ = make(BY_NAME["connect4"])
    with pytest.raises(OSError, match="map update"):
        group.filter.admit(7, range(1000, 2000))
    group.filter.admit(7, (1, 2))()


def test_a_filter_that_is_closed_can_still_be_asked_to_shut_a_door(make: Make) -> None:
    group, _ = make(BY_NAME["connect4"])
    withdraw = group.filter.admit(7, (1,))
    group.close()
    withdraw()
    group.close()


def test_only_tcp_over_ipv4_can_be_made_and_not_in_the_network_of_the_machine(make: Make, members: Join) -> None:
    _, folder = make(BY_NAME["socket"])
    kinds = [
        (family, kind, way) for family in (2, 10) for kind in (1, 2, 3) for way in (0, 1, 6, 17, 58, 132, 136, 262)
    ]
    member = members(folder)
    assert [one for one in kinds if member.attempt(f"socket.socket{one} and None") is None] == []
    mine = members(folder)
    assert mine.attempt("__import__('ctypes').CDLL(None).unshare(0x40000000)") == 0
    made = [one for one in kinds if mine.attempt(f"socket.socket{one} and None") is None]
    assert made == [(2, 1, 0), (2, 1, 6)]


TUNNEL: Final = "/dev/net/tun"


@pytest.mark.skipif(not os.access(TUNNEL, os.W_OK), reason="no interface can be made here")
def test_no_packet_leaves_by_another_interface(make: Make) -> None:
    """Even of a socket that may do everything else: the other end of an interface of our own sees what is sent."""
    _, folder = make(BY_NAME["packet"])
    ran = [
        subprocess.run(
            [sys.executable, "-I", "-c", SEND_BY_TUNNEL, str(group)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for group in ("", folder)
    ]
    assert [one.stdout for one in ran] == ["1\n", "0\n"], ran


SEND_BY_TUNNEL: Final = """
import ctypes, fcntl, os, select, socket, struct, sys
if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
    raise OSError(ctypes.get_errno(), "unshare")
tunnel = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH22x", b"out", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
with socket.socket() as control:
    for request, address in ((0x8916, "10.9.9.1"), (0x891C, "255.255.255.0")):  # SIOCSIFADDR, SIOCSIFNETMASK
        named = struct.pack("16sHH4s8x", b"out", socket.AF_INET, 0, socket.inet_aton(address))
        fcntl.ioctl(control, request, named)
    fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"out", 0x41))  # SIOCSIFFLAGS, up and running
if sys.argv[1]:
    open(sys.argv[1] + "/cgroup.procs", "w").write("0")
guest = socket.socket()
guest.setblocking(False)
guest.connect_ex(("10.9.9.2", 80))  # the first packet is sent before this returns
seen = set()
while select.select([tunnel], [], [], 0)[0]:
    packet = os.read(tunnel, 2000)
    if packet[0] >> 4 == 4:
        seen.add(packet[16:20])
print(len(seen & {socket.inet_aton("10.9.9.2")}))
"""

OWNER: Final = """
import os, signal, sys
from pathlib import Path
from runvisor.actors.jail import cgroups
from runvisor.actors.jail.egress.cgroup_filter import FilteredGroup
group = FilteredGroup.make(cgroups.group_name(os.getpid(), 0, "filter-owner"), Path(sys.argv[1]))
group.filter.admit(1 << 63, (80,))
print("ready", flush=True)
signal.pause()
"""


def test_it_holds_when_its_owner_is_killed_and_a_guest_lives_on(members: Join, bait: Bait) -> None:
    parent = cgroups.find_v2_parent()
    assert parent is not None
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(parent)], stdout=subprocess.PIPE, text=True)
    folder = parent / cgroups.group_name(owner.pid, 0, "filter-owner")
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "ready\n"
        guest = members(folder)
        ways = (
            f"socket.socket(2, 1).connect(('127.0.0.1', {bait.port('tcp')}))",
            f"socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {bait.port('udp')}))",
        )
        owner.kill()
        owner.wait()
        assert [guest.attempt(way) for way in ways] == ["EPERM", "EPERM"]
        assert bait.reached() == []
        assert [members(None).attempt(way) for way in ways] == [None, 1]  # nothing else is in the way
        assert sorted(bait.reached()) == ["tcp", "udp"]

        os.utime(folder, (0, 0))
        cgroups.sweep(parent)
        assert folder.exists(), "a group was removed from around a living guest"
        guest.close()
        cgroups.sweep(parent)
        assert not folder.exists(), "what a killed owner left is removed by the next"
    finally:
        owner.kill()
        owner.wait()
        if folder.exists():
            folder.rmdir()


def test_the_next_owner_removes_what_a_killed_one_left(make: Make) -> None:
    ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
    ended.wait()
    parent = cgroups.find_v2_parent()
    assert parent is not None
    left = parent / cgroups.group_name(ended.pid, 0, "filter-owner")
    left.mkdir()
    os.utime(left, (0, 0))
    make(*HOOKS)
    assert not left.exists()


def test_where_it_cannot_be_made_nothing_is_left() -> None:
    parent = cgroups.find_v2_parent()
    assert parent is not None
    name = cgroups.group_name(os.getpid(), next(_sequence), "filter-test")
    with pytest.raises(OSError, match="Invalid argument"):
        FilteredGroup.make(name, parent, (*HOOKS, UNKNOWN))
    assert not (parent / name).exists()
    FilteredGroup.make(name, parent, (replace(UNKNOWN, is_required=False),)).close()


def test_a_group_that_others_use_gets_all_hooks_or_none(make: Make) -> None:
    _, folder = make()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # The first does not load; all of the others do, and one too many is refused when it is attached.
        for too_many in ([UNKNOWN], [BY_NAME["connect6"]] * 64):
            with pytest.raises(OSError, match=r"Invalid argument|too long"):
                KernelFilter(fd, [*HOOKS, *too_many])
            assert [attached(folder, hook) for hook in HOOKS if hook.is_required] == [()] * 6
    finally:
        os.close(fd)


def test_a_door_is_named_by_network_and_port() -> None:
    assert len({door(1, 80), door(2, 80), door(1, 81)}) == 3
