"""What a guest reaches through the broker, and what it does not: real sockets, a real broker process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import socket
import ssl
from pathlib import Path

import pytest

from runvisor.actors.jail.egress.egress import EgressBroker
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.records import EgressLimits, EgressRecord
from runvisor.policies.errors import InvalidPermissions, SpawnFailed
from runvisor.policies.permissions import MiB
from tests.actors.jail.egress.world import Upstream, World, until_end

GET = b"GET http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n"
DIRECT = b"GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n"


def _tls(sock: socket.socket, name: str | None, outside: World) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(outside.certificate))
    context.check_hostname = False
    if name is None:
        context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(sock, server_hostname=name)


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def _resident_bytes(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


# What is granted works


def test_a_granted_host_answers_through_the_proxy_and_to_a_client_that_knows_of_none(outside: World) -> None:
    with outside.guest("allowed.test") as guest:
        assert guest.ask(GET).endswith(b"hello")
        assert b"GET / HTTP/1.1\r\nHost: allowed.test\r\n" in outside.web.wait()
        assert guest.ask(DIRECT, sock=guest.by_name("allowed.test", 80)).endswith(b"hello")
        outside.web.wait()
        usage = guest.finish()
    steps = [(record.step, record.via, record.host, record.port, record.address) for record in guest.records]
    place = outside.web.place
    assert steps == [(step, "http", "allowed.test", 80, place) for step in ("allowed", "ended") * 2]
    assert usage.requests == 2
    assert usage.download_bytes == sum(record.download_bytes for record in guest.records) > 0


def test_tls_passes_by_tunnel_by_name_and_by_wildcard(outside: World, canary: Upstream) -> None:
    with outside.guest("allowed.test", "*.wild.test") as guest:
        for name in ("allowed.test", "a.wild.test"):
            line, sock = guest.tunnel(f"{name}:443")
            assert line == b"HTTP/1.1 200 Connection established"
            assert guest.ask(DIRECT, sock=_tls(sock, name, outside)).endswith(b"hello")
        direct = _tls(guest.by_name("allowed.test", 443), "allowed.test", outside)
        assert guest.ask(DIRECT, sock=direct).endswith(b"hello")
        assert [record.via for record in guest.said("allowed")] == ["connect", "connect", "direct"]


def test_another_port_carries_any_protocol_and_half_closes(outside: World) -> None:
    with outside.guest("allowed.test:7") as guest:
        sock = guest.by_name("allowed.test", 7)
        assert sock.recv(100) == b"220 ready\r\n"  # the server speaks first
        sock.sendall(b"x" * 300_000)
        sock.shutdown(socket.SHUT_WR)
        assert until_end(sock) == b"x" * 300_000


def test_a_granted_address_is_reached_by_itself(outside: World) -> None:
    with outside.guest("127.0.0.9:443") as guest:
        sock = _tls(guest.connect("127.0.0.9", 443), None, outside)
        assert guest.ask(DIRECT, sock=sock).endswith(b"hello")


def test_a_body_streams_up_whole(outside: World) -> None:
    body = b"5\r\nhello\r\n3\r\nEND\r\n0\r\n\r\n"
    with outside.guest("body.test") as guest:
        head = b"POST http://body.test/ HTTP/1.1\r\nHost: body.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert guest.ask(head + body).endswith(b"ok")
        assert outside.body.wait().endswith(body)
        size = 3_000_000
        head = b"POST http://body.test/ HTTP/1.1\r\nHost: body.test\r\nContent-Length: %d\r\n\r\n" % size
        assert guest.ask(head + b"y" * (size - 3) + b"END").endswith(b"ok")
        assert outside.body.wait().count(b"y") >= size - 3


def test_a_server_that_is_not_there_is_a_bad_gateway(outside: World) -> None:
    with outside.guest("gone.test") as guest:
        assert _status(guest.ask(GET.replace(b"allowed", b"gone"))) == 502
        assert "failed" in guest.said("ended")[0].reason


# What is not granted does not


@pytest.mark.parametrize(
    "place",
    [
        "evil.test:443", "allowed.test:80", "allowed.test:22", "wild.test:443", "allowed.test.evil.test:443",
        "127.0.0.1:443", "localhost:443", "2130706433:443", "0x7f000001:443", "0177.0.0.1:443", "127.1:443",
        "[::1]:443", "[::ffff:127.0.0.1]:443", "evil.test.:443", "EVIL.test:443", "xn--vil-dma.test:443",
        "\xe9vil.test:443", "allowed.test:443@evil.test:443", "allowed.test@evil.test:443",
        "evil.test#allowed.test:443",
        "allowed.test", "allowed.test:0443443", "allowed.test:-1", "allowed.test:+443", "allowed.test:４４３",
        "a\0.test:443", "unix:/proc/self/fd/3", "/run/control.sock:443", "", ":443", "http://evil.test:443",
    ],
)  # fmt: skip
def test_no_tunnel_leads_anywhere_else(outside: World, canary: Upstream, place: str) -> None:
    with outside.guest("allowed.test:443") as guest:
        line, sock = guest.tunnel(place)
        assert _status(line) in (400, 403)
        assert until_end(sock).startswith(b"runvisor: ")
        assert guest.said("allowed") == []


@pytest.mark.parametrize("place", ["ALLOWED.Test:443", "allowed.test.:443"])
def test_other_spellings_of_a_granted_name_are_that_name(outside: World, place: str) -> None:
    with outside.guest("allowed.test") as guest:
        line, sock = guest.tunnel(place)
        assert _status(line) == 200
        assert guest.ask(DIRECT, sock=_tls(sock, "allowed.test", outside)).endswith(b"hello")


def test_an_address_inside_that_means_nothing_leads_nowhere(outside: World, canary: Upstream) -> None:
    with outside.guest("allowed.test") as guest:
        with contextlib.suppress(ConnectionResetError):  # the broker may have closed it before we look
            assert guest.ask(DIRECT, sock=guest.connect("127.9.9.9", 80)) == b""
        assert guest.said("denied")[0].reason == "no granted host has this address inside"


@pytest.mark.parametrize("address", ["8.8.8.8", "10.0.0.1", "169.254.169.254"])
def test_nothing_else_has_a_route(outside: World, address: str) -> None:
    with outside.guest("allowed.test", "8.8.4.4:53") as guest, pytest.raises(OSError, match="unreachable"):
        guest.connect(address, 80)


def test_a_port_that_is_not_granted_is_closed_inside(outside: World) -> None:
    with outside.guest("allowed.test:443") as guest, pytest.raises(ConnectionRefusedError):
        guest.connect("127.1.0.1", 80)


@pytest.mark.parametrize("name", ["evil.test", None, "sub.allowed.test"])
@pytest.mark.parametrize("way", ["tunnel", "direct", "other port"])
def test_a_greeting_for_another_server_goes_nowhere(outside: World, way: str, name: str | None) -> None:
    seen = outside.tls.connections
    with outside.guest("allowed.test", "allowed.test:7") as guest:
        sock = guest.tunnel("allowed.test:443")[1] if way == "tunnel" else None
        sock = sock or guest.by_name("allowed.test", 443 if way == "direct" else 7)
        if way == "other port":
            sock.recv(100)
        with pytest.raises((ConnectionResetError, ssl.SSLError)):
            _tls(sock, name, outside)
        denied = guest.said("denied")
        assert len(denied) == 1
        assert "greeting names" in denied[0].reason
        assert [record.upload_bytes for record in guest.said("ended")] == [0]
    assert outside.tls.connections <= seen + 1


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01\x00\x00"]
)
def test_a_tunnel_carries_nothing_but_tls(outside: World, first: bytes) -> None:
    with outside.guest("allowed.test") as guest:
        _, sock = guest.tunnel("allowed.test:443")
        assert guest.ask(first, sock=sock) == b""
        assert [record.upload_bytes for record in guest.said("ended")] == [0]


def test_a_host_field_for_another_server_goes_nowhere(outside: World) -> None:
    seen = outside.web.connections
    with outside.guest("allowed.test") as guest:
        direct = guest.by_name("allowed.test", 80)
        assert _status(guest.ask(DIRECT.replace(b"allowed", b"evil"), sock=direct)) == 400
        assert _status(guest.ask(GET.replace(b"Host: allowed", b"Host: evil"))) == 400
        assert _status(guest.ask(GET.replace(b"http://allowed", b"http://x@allowed"))) == 400
        absolute = GET.replace(b"allowed", b"evil")
        assert _status(guest.ask(absolute, sock=guest.by_name("allowed.test", 80))) == 403
        assert _status(guest.ask(absolute)) == 403
    assert outside.web.connections == seen


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"Content-Length: 1\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"Content-Length: +5\r\n\r\nhello",
        b"Content-Length: 5, 5\r\n\r\nhello",
        b"Content_Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"X: a\0b\r\n\r\n",
        b"Host: evil.test\r\n\r\n",
        b"Connection: host\r\n\r\n",
        b"Connection: close, content-length\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_an_ambiguous_request_is_not_passed_on(outside: World, framing: bytes) -> None:
    seen = outside.web.connections
    with outside.guest("allowed.test") as guest:
        head = b"POST http://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n"
        assert _status(guest.ask(head + framing)) == 400
        assert guest.said("allowed") == []
    assert outside.web.connections == seen


@pytest.mark.parametrize(
    "body",
    [b"5;evil=1\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
     b"0\r\nX: y\r\n\r\n", b"2\r\nhello\r\n"],
)  # fmt: skip
def test_a_strange_chunk_ends_the_request(outside: World, body: bytes) -> None:
    with outside.guest("body.test") as guest:
        head = b"POST http://body.test/ HTTP/1.1\r\nHost: body.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert _status(guest.ask(head + body)) == 400
        assert b"0\r\n\r\n" not in outside.body.wait()  # for the server, the body never ends
        assert len(guest.said("denied")) == 1


@pytest.mark.parametrize("direct", [False, True])
def test_what_follows_a_request_is_never_passed_on(outside: World, canary: Upstream, direct: bool) -> None:
    second = b"GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"
    with outside.guest("allowed.test") as guest:
        sock = guest.by_name("allowed.test", 80) if direct else guest.proxy()
        answer = guest.ask((DIRECT if direct else GET) + second, sock=sock)
        assert answer.count(b"HTTP/1.1 200") == 1
        assert b"evil" not in outside.web.wait()
        head = GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n")
        assert guest.ask(head + b"hello" + second).count(b"HTTP/1.1 200") == 1
        assert b"evil" not in outside.web.wait()


# Bounds


def test_a_head_without_end_is_cut_off(outside: World) -> None:
    before = _resident_bytes(outside.broker.pid)
    with outside.guest("allowed.test") as guest:
        assert _status(guest.ask(b"GET http://allowed.test/ HTTP/1.1\r\nX: " + b"a" * (100 * MiB))) == 431
    assert _resident_bytes(outside.broker.pid) - before < 8 * MiB


def test_a_head_that_dribbles_in_holds_up_nobody_else(outside: World) -> None:
    with outside.guest("allowed.test", limits=EgressLimits(head_timeout_s=0.5)) as guest:
        slow = guest.proxy()
        slow.sendall(b"GET http://allowed.test/ HT")
        assert guest.ask(GET).endswith(b"hello")
        assert _status(until_end(slow)) == 408
        mute = guest.by_name("allowed.test", 443)
        mute.sendall(b"\x16\x03\x01")
        assert until_end(mute) == b""


def test_a_reader_that_does_not_read_holds_the_server_back(outside: World) -> None:
    before = _resident_bytes(outside.broker.pid)
    with outside.guest("flood.test:7000") as guest:
        sock = guest.by_name("flood.test", 7000)
        sent = int(outside.flood.wait())
        grown = _resident_bytes(outside.broker.pid) - before
        sock.close()
    assert sent < 40 * MiB  # what the kernel's socket buffers take
    assert grown < 4 * MiB


def test_bytes_are_counted_and_bounded_both_ways(outside: World) -> None:
    with outside.guest("flood.test:7000", limits=EgressLimits(download_bytes=1_000_000)) as guest:
        assert len(until_end(guest.by_name("flood.test", 7000))) <= 1_000_000
        assert "may receive 1000000 bytes" in guest.said("denied")[0].reason
    with outside.guest("allowed.test:7", limits=EgressLimits(upload_bytes=1_000_000)) as guest:
        sock = guest.by_name("allowed.test", 7)
        guest.ask(b"x" * 3_000_000, sock=sock)
        assert "may send 1000000 bytes" in guest.said("denied")[0].reason
        assert guest.finish().upload_bytes <= 1_000_000


def test_connections_are_counted_and_bounded(outside: World) -> None:
    with outside.guest("allowed.test", limits=EgressLimits(max_requests=3)) as guest:
        assert [guest.ask(GET)[-5:] for _ in range(3)] == [b"hello"] * 3
        with pytest.raises(ConnectionRefusedError):
            guest.proxy()
        assert [record.reason for record in guest.said("denied")] == ["this execution has made its 3 connections"]


def test_more_connections_than_at_a_time_wait(outside: World) -> None:
    with outside.guest("allowed.test", limits=EgressLimits(max_connections=1)) as guest:
        first, second = guest.proxy(), guest.proxy()
        second.sendall(GET)
        assert select.select([second], [], [], 0.3)[0] == []
        first.sendall(GET)
        assert until_end(first).endswith(b"hello")
        assert until_end(second).endswith(b"hello")


def test_a_connection_on_which_nothing_moves_ends(outside: World) -> None:
    with outside.guest("allowed.test:7", "mute.test:9", limits=EgressLimits(idle_timeout_s=0.3)) as guest:
        assert until_end(guest.by_name("allowed.test", 7)) == b"220 ready\r\n"
        assert until_end(guest.by_name("mute.test", 9)) == b""
        assert [record.reason for record in guest.said("ended")] == ["it took too long"] * 2


def test_the_end_of_an_execution_cuts_its_connections(outside: World) -> None:
    with outside.guest("allowed.test:7") as guest:
        sock = guest.by_name("allowed.test", 7)
        sock.recv(100)
        guest.egress.close()
        assert until_end(sock) == b""
        with pytest.raises(ConnectionRefusedError):
            guest.by_name("allowed.test", 7)
        assert guest.said("ended")[0].reason == "the execution ended"


def test_executions_at_a_time_have_grants_of_their_own(outside: World, canary: Upstream) -> None:
    with outside.guest("allowed.test") as one, outside.guest("body.test") as other:
        assert _status(one.ask(GET)) == 200
        assert _status(other.ask(GET)) == 403


def test_nothing_is_left_of_many_executions(outside: World) -> None:
    def use() -> list[int]:
        with outside.guest("allowed.test") as guest:
            guest.ask(GET)
            guest.proxy()
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (outside.broker.pid, "self")]

    before = use()
    assert [use() for _ in range(20)] == [before] * 20


# The broker itself


def test_the_broker_holds_nothing_that_it_does_not_use(outside: World) -> None:
    pid = outside.broker.pid
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert set(status["CapEff"] + status["CapPrm"] + status["CapBnd"]) == {"0"}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "0" not in status["Uid"].split()
    assert status["Groups"].strip() == ""
    assert Path(f"/proc/{pid}/environ").read_bytes().count(b"\0") <= 3
    root = Path(f"/proc/{pid}/root")
    assert not (root / "etc/shadow").exists()
    assert not (root / "var").exists()
    assert (root / "etc/resolv.conf").exists()


def test_a_broker_that_was_killed_takes_its_connections_along_and_another_follows() -> None:
    with EgressBroker() as broker:
        plan = NetworkPlan.of(("allowed.test",))
        egress = broker.open(plan, [], on_record=list[EgressRecord]().append)
        first = broker.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert egress.close().requests == 0
        with broker.open(plan, [], on_record=list[EgressRecord]().append) as again:
            assert broker.pid not in (first, None)
            assert again.close().requests == 0


def test_a_record_that_cannot_be_kept_cuts_the_network(outside: World) -> None:
    def refuse(record: EgressRecord) -> None:
        raise OSError("the log is full")

    with EgressBroker({"allowed.test:80": outside.web.place}) as broker:
        world = dataclasses.replace(outside, broker=broker)
        with world.guest("allowed.test", on_record=refuse) as guest:
            until_end(guest.proxy()) if guest.ask(GET) else None
            assert guest.finish().requests == 0
        assert broker.pid is None


def test_a_closed_broker_refuses_and_closes_what_it_is_given() -> None:
    broker = EgressBroker()
    broker.close()
    reader, writer = os.pipe()
    with pytest.raises(SpawnFailed):
        broker.open(NetworkPlan.of(("a.test",)), [reader, writer], on_record=print)
    for fd in (reader, writer):
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_a_malformed_table_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidPermissions):
        EgressBroker({"a.test": "not an address"})
