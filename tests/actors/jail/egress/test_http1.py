"""Requests as strict readers see them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.jail.egress import http1
from runvisor.actors.jail.egress.records import Refused

HOST = b"Host: a.test\r\n"


def _read(head: bytes, rest: bytes, *, step: int = 1 << 20) -> tuple[bytes, bytes]:
    """Parse a head, read its body, and return the body and what is left unread."""

    async def run() -> tuple[bytes, bytes]:
        reader = asyncio.StreamReader()
        for at in range(0, len(rest), step):
            reader.feed_data(rest[at : at + step])
        reader.feed_eof()
        pieces = [piece async for piece in http1.body(http1.parse(head), reader)]
        return b"".join(pieces), await reader.read()

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("line", "host", "port", "path"),
    [
        (b"GET http://a.test/ HTTP/1.1", "a.test", 80, b"/"),
        (b"GET HTTP://A.Test:8080/x?y=http://b.test/ HTTP/1.1", "a.test", 8080, b"/x?y=http://b.test/"),
        (b"GET http://a.test?x HTTP/1.0", "a.test", 80, b"/?x"),
        (b"POST http://10.0.0.1:1/ HTTP/1.0", "10.0.0.1", 1, b"/"),
        (b"GET http://[2606:4700::1111]:81/ HTTP/1.0", "2606:4700::1111", 81, b"/"),
        (b"CONNECT a.test:443 HTTP/1.0", "a.test", 443, b""),
    ],
)
def test_a_request_says_where_it_goes(line: bytes, host: str, port: int, path: bytes) -> None:
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = http1.parse(line + b"\r\nHost: " + authority.encode() + b"\r\n\r\n")
    assert (request.host, request.port, request.path) == (host, port, path)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + HOST,
        b"GET https://a.test/ HTTP/1.1\r\n" + HOST,
        b"GET ftp://a.test/ HTTP/1.1\r\n" + HOST,
        b"GET //a.test/ HTTP/1.1\r\n" + HOST,
        b"GET http:a.test/ HTTP/1.1\r\n" + HOST,
        b"GET http:///x HTTP/1.1\r\n" + HOST,
        b"GET http://a.test\\@b.test/ HTTP/1.1\r\n" + HOST,
        b"GET http://b.test@a.test/ HTTP/1.1\r\n" + HOST,
        b"GET http://a.test:80:80/ HTTP/1.1\r\n" + HOST,
        b"GET http://a.test:/ HTTP/1.1\r\n" + HOST,
        b"GET http://a.test:65536/ HTTP/1.1\r\n" + HOST,
        b"GET http://a.test%2eb.test/ HTTP/1.1\r\n" + HOST,
        b"GET http://a.test/#x HTTP/1.1\r\n" + HOST,
        b"GET http://0x7f.1/ HTTP/1.0\r\n",
        b"GET http://127.1/ HTTP/1.0\r\n",
        b"GET http://[127.0.0.1]/ HTTP/1.0\r\n",
        b"GET http://a.test/\xff HTTP/1.1\r\n" + HOST,
        b"GET http://a.test/ x HTTP/1.1\r\n" + HOST,
        b"GET  http://a.test/ HTTP/1.1\r\n" + HOST,
        b"GET\thttp://a.test/ HTTP/1.1\r\n" + HOST,
        b"G ET http://a.test/ HTTP/1.1\r\n" + HOST,
        b"GET http://a.test/ HTTP/2.0\r\n" + HOST,
        b"GET http://a.test/ HTTP/1.10\r\n" + HOST,
        b"GET http://a.test/\r\n" + HOST,
        b"PRI * HTTP/2.0\r\n",
        b"\r\nGET http://a.test/ HTTP/1.1\r\n" + HOST,
        b"GET http://a.test/ HTTP/1.1\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nHost:\r\n",
        b"GET http://a.test/ HTTP/1.1\r\n" + HOST + HOST,
        b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nHost: a.test:81\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nHost: a.test, b.test\r\n",
        b"GET http://a.test/ HTTP/1.1\r\nHost: x@a.test\r\n",
        b"GET http://a.test/ HTTP/1.1\r\n" + HOST + b": x\r\n",
        b"GET http://a.test/ HTTP/1.1\r\n" + HOST + b"x\r\n",
        b"GET http://a.test/ HTTP/1.1\r\n" + HOST + b"X\xe9: y\r\n",
        b"GET http://a.test/ HTTP/1.1\r\n" + HOST + b"X: a\x7fb\r\n",
        b"GET http://a.test/ HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 201,
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n",
        b"POST http://a.test/ HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n",
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Content-Length: 1e1\r\n",
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Content-Length: \r\n",
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Content_Length: 5\r\n",
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"X: y\r\n Content-Length: 5\r\n",
        b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Connection: Content-Length\r\nContent-Length: 5\r\n",
        b"CONNECT a.test HTTP/1.0\r\n",
        b"CONNECT a.test:443/ HTTP/1.0\r\n",
        b"CONNECT http://a.test:443 HTTP/1.0\r\n",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nContent-Length: 0\r\n",
        b"CONNECT a.test:443 HTTP/1.1\r\nHost: b.test:443\r\n",
    ],
)
def test_a_malformed_head_is_refused(head: bytes) -> None:
    with pytest.raises(Refused):
        http1.parse(head + b"\r\n")


def test_what_is_for_the_proxy_alone_stays_there() -> None:
    head = (
        b"GET http://a.test/ HTTP/1.1\r\nHOST: A.TEST:80\r\nProxy-Authorization: secret\r\n"
        b"Connection: X-Mine, Upgrade\r\nX-Mine: 1\r\n"
        b"Upgrade: h2c\r\nHTTP2-Settings: x\r\nKeep-Alive: 1\r\nTE: trailers\r\nAccept: */*\r\n\r\n"
    )
    expected = b"GET / HTTP/1.1\r\nHost: a.test\r\naccept: */*\r\nConnection: close\r\n\r\n"
    assert http1.parse(head).forwarded() == expected


def test_a_request_by_name_stays_with_that_name() -> None:
    meant = ("a.test", 80)
    assert http1.parse(b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n", meant=meant).path == b"/x"
    assert http1.parse(b"GET /x HTTP/1.0\r\n\r\n", meant=meant).host == "a.test"
    assert http1.parse(b"OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", meant=meant).path == b"*"
    for head in (
        b"GET /x HTTP/1.1\r\nHost: b.test\r\n\r\n",
        b"GET http://b.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
        b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: a.test\r\n\r\n",
    ):
        with pytest.raises(Refused):
            http1.parse(head, meant=meant)


_targets = st.builds(
    "http://{}:{}/{}".format, st.sampled_from(["a.test", "B.test"]), st.integers(1, 65535), st.text("ab/?=", max_size=9)
)
_names = st.text("abcXYZ-", min_size=1, max_size=8)
_values = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20)


@given(_targets, st.lists(st.tuples(_names, _values), max_size=5), st.sampled_from(["GET", "POST"]), st.integers(0, 99))
def test_what_is_forwarded_reads_the_same(target: str, fields: list[tuple[str, str]], method: str, length: int) -> None:
    place = target[7:].partition("/")[0]
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {place}",
        f"Content-Length: {length}",
        *(f"x{n}: {v}" for n, v in fields),
    ]
    request = http1.parse("\r\n".join([*lines, "", ""]).encode("latin-1"))
    again = http1.parse(request.forwarded(), meant=(request.host, request.port))
    assert (again.host, again.port, again.path, again.body) == (request.host, request.port, request.path, length)
    assert again.fields == request.fields


@given(st.binary(max_size=80))
def test_wild_bytes_are_refused_and_never_crash(noise: bytes) -> None:
    for head in (noise + b"\r\n\r\n", b"GET http://a.test/ HTTP/1.1\r\n" + HOST + noise + b"\r\n\r\n"):
        try:
            request = http1.parse(head)
        except Refused:
            continue
        assert request.host == "a.test"
        assert request.forwarded().count(b"\r\n\r\n") == 1


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 30))
def test_chunks_come_out_as_they_went_in_and_the_rest_stays(chunks: list[bytes], step: int) -> None:
    head = b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n"
    body = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    out, rest = _read(head, body + b"GET next", step=step)
    assert out.lower() == body.lower()
    assert rest == b"GET next"


def test_a_counted_body_ends_where_it_says() -> None:
    head = b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\n"
    assert _read(head, b"helloGET next") == (b"hello", b"GET next")
    with pytest.raises(asyncio.IncompleteReadError):
        _read(head, b"hel")


@pytest.mark.parametrize(
    "body",
    [b"5;x\r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n", b" 5\r\nhello\r\n0\r\n\r\n", b"-5\r\n", b"123456789\r\n",
     b"\r\n", b"5\r\nhelloX\n0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"0\r\n\n", b"00000000000\r\n\r\n"],
)  # fmt: skip
def test_strange_chunks_are_refused(body: bytes) -> None:
    head = b"POST http://a.test/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with pytest.raises((Refused, asyncio.IncompleteReadError)):
        _read(head, body)
