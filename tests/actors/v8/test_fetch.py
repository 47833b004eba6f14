"""fetch against a server on loopback, by trusted code in a guest process without its jail."""

from __future__ import annotations

import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.runtime import PoolSize
from runvisor.actors.v8.fetch import MAX_OPEN, Answer, Fetcher, Kind, explain
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies.permissions import Network
from runvisor.policies.trust import Trust
from tests.actors.executing import execute

RunUnjailed = Callable[..., Any]
BIG = bytes(range(256)) * 2048


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log_message: ClassVar[Any] = lambda *_: None
    stalled = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/big":
            self._answer(200, BIG, {"X-One": "1", "Set-Cookie": "a=1"})
        elif self.path == "/gzip":
            self._answer(200, gzip.compress(b"packed " * 1000), {"Content-Encoding": "gzip"})
        elif self.path == "/redirect":
            self._answer(302, b"", {"Location": "/headers"})
        elif self.path == "/round":
            self._answer(302, b"", {"Location": "/round"})
        elif self.path == "/headers":
            self._answer(200, json.dumps({k.lower(): v for k, v in self.headers.items()}).encode())
        elif self.path == "/stall":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"begin")
            self.wfile.flush()
            self.stalled.wait(20)
        else:
            self._answer(404, b"no")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        told = {"size": len(body), "type": self.headers.get("Content-Type"), "head": body[:20].decode("latin-1")}
        self._answer(201, json.dumps(told).encode())

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    _Handler.stalled.set()
    server.shutdown()
    server.server_close()


def test_requests_of_all_shapes(run_unjailed: RunUnjailed, url: str) -> None:
    code = """
const out = {};
let r = await fetch(inputs + "/big");
out.head = [r.status, r.ok, r.headers.get("x-one"), r.url === inputs + "/big", r.type];
out.big = (await r.arrayBuffer()).byteLength;
out.used = await r.text().catch((e) => e.name);
out.gzip = (await (await fetch(inputs + "/gzip")).text()).length;
r = await fetch(inputs + "/redirect", {headers: {"X-Mine": "yes"}});
out.redirect = [r.redirected, r.url, (await r.json())["x-mine"]];
out.manual = (await fetch(inputs + "/redirect", {redirect: "manual"})).status;
out.round = await fetch(inputs + "/round").catch((e) => [e.name, e.message.includes("20 redirects")]);
out.missing = (await fetch(inputs + "/missing")).status;
out.head2 = (await (await fetch(inputs + "/big", {method: "HEAD"})).text()).length;
out.post = await (await fetch(inputs, {method: "POST", body: JSON.stringify({a: 1})})).json();
const form = new URLSearchParams({a: "1 2"});
out.form = await (await fetch(inputs, {method: "POST", body: form})).json();
let sent = 0;
const pull = (c) => sent < 5 ? c.enqueue(new Uint8Array(100000).fill(65 + sent++)) : c.close();
const body = new ReadableStream({pull});
out.stream = await (await fetch(inputs, {method: "POST", body, duplex: "half"})).json();
const pieces = [];
for await (const piece of (await fetch(inputs + "/big")).body) pieces.push(piece.length);
out.pieces = [pieces.length > 1, pieces.reduce((a, b) => a + b)];
out.many = (await Promise.all(Array.from({length: 10}, () => fetch(inputs + "/headers").then((r) => r.json())))).length;
out.scheme = await fetch("ftp://127.0.0.1/").catch((e) => e.message);
out.refused = await fetch("http://127.0.0.1:1/").catch((e) => e.name);
out
"""
    out = run_unjailed(code, url)
    assert out["head"] == [200, True, "1", True, "basic"]
    assert (out["big"], out["used"], out["gzip"]) == (len(BIG), "TypeError", 7000)
    assert out["redirect"] == [True, url + "/headers", "yes"]
    assert (out["manual"], out["round"], out["missing"], out["head2"]) == (302, ["TypeError", True], 404, 0)
    assert out["post"] == {"size": 7, "type": "text/plain;charset=UTF-8", "head": '{"a":1}'}
    assert out["form"] == {"size": 5, "type": "application/x-www-form-urlencoded;charset=UTF-8", "head": "a=1+2"}
    assert out["stream"] == {"size": 500_000, "type": None, "head": "A" * 20}
    assert out["pieces"] == [True, len(BIG)]
    assert out["many"] == 10
    assert "cannot be fetched" in out["scheme"]
    assert out["refused"] == "TypeError"


def test_a_request_can_be_broken_off_at_any_time(run_unjailed: RunUnjailed, url: str) -> None:
    code = """
const c = new AbortController();
const r = await fetch(inputs + "/stall", {signal: c.signal});
const reader = r.body.getReader();
const first = new TextDecoder().decode((await reader.read()).value);
setTimeout(() => c.abort(), 5);
const broken = await reader.read().catch((e) => e.name);
const early = await fetch(inputs + "/stall", {signal: AbortSignal.abort()}).catch((e) => e.name);
[first, broken, early]
"""
    assert run_unjailed(code, url) == ["begin", "AbortError", "AbortError"]


def test_a_body_is_read_only_as_fast_as_it_is_asked_for(url: str) -> None:
    answers: list[Answer] = []
    arrived = threading.Condition()

    def answer(step: Answer) -> None:
        with arrived:
            answers.append(step)
            arrived.notify_all()

    fetcher = Fetcher(answer)
    options = {"url": url + "/big", "method": "GET", "headers": [], "redirect": "follow", "body": None}
    number = fetcher.open(json.dumps(options))
    with arrived:
        assert arrived.wait_for(lambda: len(answers) == 1, 10)
        fetcher.pull(number)
        assert arrived.wait_for(lambda: len(answers) == 2, 10)
        assert not arrived.wait_for(lambda: len(answers) > 2, 0.05)
    assert [step.kind for step in answers] == [Kind.HEAD, Kind.CHUNK]
    fetcher.close(number)


def test_requests_are_bounded() -> None:
    fetcher = Fetcher(lambda answer: None)
    held = threading.Event()
    fetcher._run = lambda request: held.wait(10)  # type: ignore[method-assign, assignment, return-value]
    options = json.dumps(
        {"url": "http://127.0.0.1:1/", "method": "GET", "headers": [], "redirect": "follow", "body": None}
    )
    opened = [fetcher.open(options) for _ in range(MAX_OPEN + 1)]
    held.set()
    assert opened[-1] == -1
    assert min(opened[:-1]) > 0


def test_each_failure_says_what_to_grant() -> None:
    assert "network.allowed_hosts" in explain(PermissionError(1, "no"), "h")
    assert explain(ConnectionRefusedError(111, "refused"), "h").startswith("h: ")


@pytest.mark.root
@pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail)
def test_a_jailed_task_reaches_what_it_was_granted_and_nothing_else(url: str) -> None:
    address = url.removeprefix("http://")
    runtime = V8Runtime(PoolSize(minimum=1, maximum=1), hosts={"api.test:80": address, "other.test:80": address})
    runtime.start()
    code = """
const granted = await fetch("http://api.test/big");
const refused = await fetch("http://other.test/big").catch((e) => [e.name, e.message]);
const direct = await fetch(inputs + "/big").catch((e) => e.name);
[granted.status, (await granted.bytes()).length, refused, direct]
"""
    try:
        network = Network(allowed_hosts=("api.test",))
        result = execute(runtime, code, "javascript", "isolate", url, trust=Trust.VERIFIED, network=network)
    finally:
        runtime.close()
    status, size, refused, direct = result.unwrap()
    assert (status, size) == (200, len(BIG))
    assert refused[0] == direct == "TypeError"
    assert "network.allowed_hosts" in refused[1]
