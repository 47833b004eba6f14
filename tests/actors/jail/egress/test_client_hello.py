"""Greetings of TLS clients, whole, in pieces, wrong and hostile."""

from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.jail.egress.client_hello import HelloGuard
from runvisor.actors.jail.egress.records import Refused

APP_DATA = b"\x17\x03\x03\x00\x02hi"
CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
ALERT = b"\x15\x03\x03\x00\x02\x01\x5a"


def real_hello(name: str | None) -> bytes:
    """Return what Python's own TLS client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def server_name(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(struct.pack(">BH", kind, len(name)) + name for name in names)
    return extension(0, struct.pack(">H", len(entries)) + entries)


def extension(kind: int, data: bytes = b"") -> bytes:
    return struct.pack(">HH", kind, len(data)) + data


def message(*extensions: bytes, tail: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    if extensions:
        joined = b"".join(extensions)
        body += struct.pack(">H", len(joined)) + joined
    body += tail
    return b"\x01" + len(body).to_bytes(3, "big") + body


def records(handshake: bytes, size: int = 1 << 14) -> bytes:
    pieces = [handshake[at : at + size] for at in range(0, len(handshake), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(piece)) + piece for piece in pieces)


def passed(data: bytes, *, host: str = "allowed.test", step: int | None = None) -> bytes:
    guard = HelloGuard(host)
    step = step or len(data)
    return b"".join(guard.feed(data[at : at + step]) for at in range(0, len(data), step))


@given(st.integers(1, 700), st.integers(1, 700))
def test_a_greeting_passes_whole_however_it_is_cut(step: int, size: int) -> None:
    data = records(message(server_name(b"allowed.test")), size) + CIPHER_SPEC + APP_DATA * 3
    assert passed(data, step=step) == data


def test_real_greetings_pass_or_not_by_their_name() -> None:
    assert passed(real_hello("allowed.test"))
    assert passed(real_hello("ALLOWED.test"))
    assert passed(real_hello(None), host="127.0.0.1")
    for name in ("evil.test", None, "x.allowed.test"):
        with pytest.raises(Refused):
            passed(real_hello(name))
    with pytest.raises(Refused):
        passed(real_hello("evil.test"), host="127.0.0.1")


def test_nothing_passes_before_the_greeting_is_whole() -> None:
    data = real_hello("allowed.test")
    guard = HelloGuard("allowed.test")
    assert b"".join(guard.feed(data[at : at + 1]) for at in range(len(data) - 1)) == b""
    assert guard.feed(data[-1:]) == data
    assert guard.greeted
    assert not guard.done
    assert guard.feed(APP_DATA) == APP_DATA
    assert guard.done


GOOD = server_name(b"allowed.test")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x80\x2e\x01\x03\x01",  # SSL 2
        b"\x16\x03\x01\x00\x00",
        b"\x16\x02\x01\x00\x05hello",
        b"\x16\x03\x01\xff\xff",
        CIPHER_SPEC + records(message(GOOD)),
        records(b"\x02" + message(GOOD)[1:]),
        records(message()),
        records(message(extension(0))),
        records(message(extension(0, b"\x00\x00"))),
        records(message(GOOD, GOOD)),
        records(message(server_name(b"allowed.test", b"evil.test"))),
        records(message(server_name(b"evil.test"))),
        records(message(server_name(b"allowed.test", kind=1))),
        records(message(server_name(b"allowed.test\0.evil.test"))),
        records(message(server_name(b"127.0.0.1"))),
        records(message(GOOD, extension(0xFE0D, b"x"))),
        records(message(GOOD, extension(0xFFCE, b"x"))),
        records(message(GOOD, extension(42))),
        records(message(GOOD, tail=b"x")),
        records(message() + struct.pack(">H", len(GOOD)) + GOOD),  # the second part only looks like its extensions
        records(message(GOOD[:2] + b"\x00\x12" + GOOD[4:] + b"x")),
        records(message(GOOD) + message(server_name(b"evil.test"))),
        records(b"\x01\xff\xff\xff"),
        records(message(GOOD)[:-3]) + APP_DATA,
        records(message(GOOD)[:20], 20) + CIPHER_SPEC,
    ],
)
def test_no_byte_passes_of(data: bytes) -> None:
    for step in (1, len(data)):
        guard = HelloGuard("allowed.test")
        out: list[bytes] = []
        with pytest.raises(Refused):
            out.extend(guard.feed(data[at : at + step]) for at in range(0, len(data), step))
        assert b"".join(out) == b""


@pytest.mark.parametrize("between", [b"", CIPHER_SPEC, ALERT, CIPHER_SPEC + ALERT * 2])
def test_a_second_greeting_names_the_same_server(between: bytes) -> None:
    first, evil = records(message(GOOD)), records(message(server_name(b"evil.test")), 3)
    assert passed(first + between + first + APP_DATA) == first + between + first + APP_DATA
    guard = HelloGuard("allowed.test")
    assert guard.feed(first + between) == first + between
    with pytest.raises(Refused):
        guard.feed(evil)


@given(st.binary(max_size=200), st.integers(0, 200), st.integers(1, 50))
def test_wild_bytes_are_refused_or_held_but_never_crash(noise: bytes, at: int, step: int) -> None:
    data = records(message(server_name(b"evil.test")))
    data = data[:at] + noise + data[at:]
    guard = HelloGuard("allowed.test")
    try:
        out = b"".join(guard.feed(data[i : i + step]) for i in range(0, len(data), step))
    except Refused:
        return
    assert out == b"" or b"allowed.test" in out
