"""HTTP for wasm modules: granted hosts through the broker, and nothing else by any means."""

from __future__ import annotations

import http.server
import json
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.compilers import ziglang
from runvisor.actors.wasm.http_guest import Browser, Refused, Request
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.errors import Cancelled
from runvisor.policies.permissions import Network, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.actors.executing import Heard
from tests.actors.jail.egress.world import make_certificate

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    pytest.mark.skipif(find_standing() is Standing.PLAIN, reason="without namespaces nothing can be granted"),
]
PAGE = Path(__file__).parents[3] / "docs" / "wasm-wasi.md"
GRANTED = ("allowed.test",)
needs_c = pytest.mark.skipif(ziglang.find() is None, reason=ziglang.REMEDY)
Http = Callable[..., Result]


class Web(http.server.BaseHTTPRequestHandler):
    """Says what it was asked, and lets ``/slow`` wait."""

    protocol_version = "HTTP/1.1"
    patience = threading.Event()

    def do_GET(self) -> None:
        body = f"{self.command} {self.path} {self.headers['Host']} {self.headers.get('X-Mine')}".encode()
        if self.path == "/slow":
            self.patience.wait(20)
        if self.path == "/big":
            body = b"x" * 300_000
        if self.command == "POST":
            body += b" " + self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(302 if self.path == "/away" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Location", "http://evil.test/")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """A TLS server that no system trusts: its port, and its certificate."""
    certificate, key = make_certificate(tmp_path_factory.mktemp("authority"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], certificate
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def connected(secure: tuple[int, Path]) -> Iterator[WasmRuntime]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place = f"127.0.0.1:{server.server_address[1]}"
    hosts = {"allowed.test:80": place, "evil.test:80": place, "allowed.test:443": f"127.0.0.1:{secure[0]}"}
    runtime = WasmRuntime(PoolSize(maximum=2), hosts=hosts)
    runtime.start()
    yield runtime
    runtime.close()
    Web.patience.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def records(connected: WasmRuntime) -> Iterator[list[tuple[str, Mapping[str, Any]]]]:
    said: list[tuple[str, Mapping[str, Any]]] = []
    before = connected.on_connection, connected.on_denial
    connected.on_connection = connected.on_denial = lambda principal, record: said.append((principal, record))
    yield said
    connected.on_connection, connected.on_denial = before


@pytest.fixture(scope="module")
def fetch(connected: WasmRuntime) -> Http:
    """Run the page's own example with a request."""
    found = re.search(r"```c\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None

    def run(
        request: object, body: str = "", hosts: tuple[str, ...] = GRANTED, watch: Watch | None = None, **options: Any
    ) -> Result:
        text = request if isinstance(request, str) else json.dumps(request)
        permissions = Permissions(network=Network(hosts), **options)
        task = Task(found[1], "c", {"args": [text, body]}, permissions, Trust.VERIFIED, "job")
        return connected.execute(task, "module", Grant("tester", Trust.VERIFIED, permissions), watch or Watch())

    return run


@needs_c
def test_a_granted_host_is_reached(fetch: Http, records: Any) -> None:
    result = fetch({"url": "http://allowed.test/x?y", "headers": {"X-Mine": "1"}})
    head, _, body = result.stdout.partition("\n")
    assert json.loads(head)["status"] == 200
    assert body == "GET /x?y allowed.test 1"
    assert (result.isolation.network, result.isolation.shared_with) == ("allow-list", ())
    steps = [(principal, record["step"], record["host"], record["label"]) for principal, record in records]
    assert steps == [("tester", "allowed", "allowed.test", "job"), ("tester", "ended", "allowed.test", "job")]


@needs_c
def test_a_body_goes_out_and_a_large_one_comes_in(fetch: Http) -> None:
    assert fetch({"url": "http://allowed.test/", "method": "POST"}, "hello").stdout.endswith(" None hello")
    assert fetch({"url": "http://allowed.test/big"}).stdout.count("x" * 1000) == 300


@needs_c
def test_another_host_is_refused_and_on_record(fetch: Http, records: Any) -> None:
    result = fetch({"url": "http://evil.test/"})
    assert result.stdout == "errno 2: evil.test:80 is not in network.allowed_hosts\n"
    assert [(record["step"], record["host"]) for _, record in records] == [("denied", "evil.test")]


@needs_c
@pytest.mark.parametrize("url", ["https://evil.test/", "http://127.0.0.1:1/", "http://allowed.test:8080/"])
def test_no_other_place_is_reached(fetch: Http, records: Any, url: str) -> None:
    assert fetch({"url": url}).stdout.startswith("errno 2:")
    assert [record["step"] for _, record in records] == ["denied"]


@needs_c
def test_a_server_with_a_certificate_of_its_own_making_is_not_believed(fetch: Http, records: Any) -> None:
    result = fetch({"url": "https://allowed.test/"})
    assert result.stdout.startswith("errno 29: SSLCertVerificationError")
    assert [(record["step"], record["via"], record["port"]) for _, record in records] == [
        ("allowed", "connect", 443),
        ("ended", "connect", 443),
    ]


def test_https_goes_through_the_proxys_tunnel(secure: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With an authority that trusts the server; what the proxy lets through is the broker's own tests' business."""
    port, certificate = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    asked: list[bytes] = []

    def tunnel(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        asked.append(head.split(b"\r\n")[0])
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as server:
            ends = {client: server, server: client}
            while True:
                for ready in select.select(list(ends), [], [])[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    ends[ready].sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as proxy:
        worker = threading.Thread(target=lambda: tunnel(proxy.accept()[0]), daemon=True)
        worker.start()
        browser = Browser(GRANTED, proxy.getsockname())
        opened = browser.answer(
            {"op": "open", "request": b'{"url": "https://allowed.test/s"}', "body": b"", "left_s": 10.0}
        )
        assert browser.answer({"op": "read", "size": 100, **opened}) == {"data": b"GET /s allowed.test None"}
        assert browser.answer({"op": "close", **opened}) == {}
        worker.join(10)
    assert asked[0].startswith(b"CONNECT allowed.test:443 ")


@needs_c
def test_a_redirect_is_not_followed(fetch: Http, records: Any) -> None:
    result = fetch({"url": "http://allowed.test/away"})
    assert json.loads(result.stdout.partition("\n")[0])["status"] == 302
    assert {record["host"] for _, record in records} == {"allowed.test"}


@needs_c
def test_without_a_grant_every_request_is_refused_and_on_record(fetch: Http, records: Any) -> None:
    result = fetch({"url": "http://allowed.test/"}, hosts=())
    assert result.stdout == "errno 76: no host is granted: name it in network.allowed_hosts\n"
    assert [record["operation"] for _, record in records] == ["http_request"]
    assert result.isolation.network == "none"


@needs_c
def test_a_server_that_is_silent_holds_nobody_beyond_the_deadline(fetch: Http) -> None:
    began = time.monotonic()
    result = fetch({"url": "http://allowed.test/slow"}, timeout_s=0.5)
    assert time.monotonic() - began < 10
    assert result.error is not None or result.stdout.startswith("errno 29")


@needs_c
def test_a_request_is_called_off_with_its_run(fetch: Http, connected: WasmRuntime, records: Any) -> None:
    heard = Heard()
    connected.on_connection = lambda principal, record: heard.watch.cancellation.cancel()
    began = time.monotonic()
    result = fetch({"url": "http://allowed.test/slow"}, watch=heard.watch, timeout_s=60.0)
    assert time.monotonic() - began < 15
    assert isinstance(result.error, Cancelled)


@pytest.mark.parametrize(
    "request_",
    [
        "",
        "[" * 100_000,
        "[]",
        "null",
        '{"url": 1}',
        '{"url": "http://a.test/", "extra": 1}',
        '{"url": "http://a.test/\\r\\nX: y"}',
        '{"url": "http://a.test/ x"}',
        '{"url": "ftp://a.test/"}',
        '{"url": "file:///etc/passwd"}',
        '{"url": "http://user@a.test/"}',
        '{"url": "http://a.test:99999/"}',
        '{"url": "http://[::1]/"}',
        '{"url": "http://127.1/"}',
        '{"url": "http:///x"}',
        '{"url": "http://a.test/", "method": "CONNECT"}',
        '{"url": "http://a.test/", "method": "GET / HTTP/1.1\\r\\nX:"}',
        '{"url": "http://a.test/", "headers": 1}',
        '{"url": "http://a.test/", "headers": {"Host": "b.test"}}',
        '{"url": "http://a.test/", "headers": {"content-length": "1"}}',
        '{"url": "http://a.test/", "headers": [["a"]]}',
        '{"url": "http://a.test/", "headers": [["a", 1]]}',
        '{"url": "http://a.test/", "headers": ' + json.dumps([["a", "b"]] * 101) + "}",
    ],
)
def test_what_is_no_request_is_refused_before_anything_is_sent(request_: str) -> None:
    with pytest.raises(Refused):
        Request.parse(request_.encode())


@needs_c
@pytest.mark.parametrize("name", ["X\r\nHost: evil.test\r\nY", "X Y", "", "é"])
def test_no_header_splits_a_request(fetch: Http, records: Any, name: str) -> None:
    result = fetch({"url": "http://allowed.test/", "headers": [[name, "1"]]})
    assert result.stdout.startswith(("errno 2", "errno 29", '{"status": 40'))
    assert "evil.test" not in str(records)


WILD = 4_000_000_000


@pytest.mark.parametrize("hosts", [(), GRANTED], ids=["without a grant", "with one"])
def test_wild_arguments_are_answered_with_an_errno(connected: WasmRuntime, hosts: tuple[str, ...]) -> None:
    """Pointers beyond the memory, handles that nobody gave, sizes beyond any bound."""
    calls = [
        f"(call $request (i32.const {WILD}) (i32.const 10) (i32.const 0) (i32.const 0) (i32.const 0))",
        f"(call $request (i32.const 0) (i32.const {WILD}) (i32.const 0) (i32.const 0) (i32.const 0))",
        f"(call $request (i32.const 0) (i32.const 10) (i32.const 0) (i32.const {WILD}) (i32.const 0))",
        f"(call $request (i32.const 0) (i32.const 10) (i32.const 0) (i32.const 0) (i32.const {WILD}))",
        "(call $head (i32.const 7) (i32.const 0) (i32.const 10) (i32.const 0))",
        f"(call $read (i32.const -1) (i32.const {WILD}) (i32.const {WILD}) (i32.const 0))",
        f"(call $read (i32.const 1) (i32.const 0) (i32.const 10) (i32.const {WILD}))",
        "(call $close (i32.const -1))",
        f"(call $error (i32.const {WILD}) (i32.const 1) (i32.const 0))",
    ]
    code = f"""(module
      (import "runvisor" "http_request" (func $request (param i32 i32 i32 i32 i32) (result i32)))
      (import "runvisor" "http_head" (func $head (param i32 i32 i32 i32) (result i32)))
      (import "runvisor" "http_read" (func $read (param i32 i32 i32 i32) (result i32)))
      (import "runvisor" "http_close" (func $close (param i32) (result i32)))
      (import "runvisor" "http_error" (func $error (param i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "run") (result {"i32 " * len(calls)}) {" ".join(calls)}))"""
    permissions = Permissions(network=Network(hosts))
    grant = Grant("wild", Trust.VERIFIED, permissions)
    values = connected.execute(Task(code, "wat", None, permissions, Trust.VERIFIED), "module", grant, Watch()).unwrap()
    assert values == [21, 1, 1, 21, 8, 21, 21, 8, 21]


def test_no_socket_exists(connected: WasmRuntime) -> None:
    functions = {"sock_accept": 3, "sock_recv": 6, "sock_send": 5, "sock_shutdown": 2}
    imports = "".join(
        f'(import "wasi_snapshot_preview1" "{name}" (func ${name} (param {"i32 " * count}) (result i32)))'
        for name, count in functions.items()
    )
    results = "i32 " * len(functions)
    for hosts in ((), GRANTED):
        for fd, answer in ((1, 57), (9, 8)):
            calls = " ".join(
                f"(call ${name} (i32.const {fd}) {'(i32.const 0) ' * (count - 1)})" for name, count in functions.items()
            )
            code = f'(module {imports} (memory (export "memory") 1) (func (export "run") (result {results}) {calls}))'
            permissions = Permissions(network=Network(hosts))
            grant = Grant("sockets", Trust.VERIFIED, permissions)
            task = Task(code, "wat", None, permissions, Trust.VERIFIED)
            assert connected.execute(task, "module", grant, Watch()).unwrap() == [answer] * 4
