"""Files and hosts of a grant, through the whole runtime: what the code sees, and what comes of it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.v8.runtime import V8Runtime
from runvisor.policies.errors import DiskLimitExceeded, InvalidPermissions
from runvisor.policies.permissions import Filesystem, MiB, Network, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

pytestmark = [
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    pytest.mark.skipif(find_standing() is Standing.PLAIN, reason="without namespaces nothing can be granted"),
]
SIZE = PoolSize(minimum=1, maximum=4)


class Web(http.server.BaseHTTPRequestHandler):
    """Says which host was asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"hello from {self.headers['Host']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def python(web: int) -> Iterator[JailedRuntime]:
    runtime = PythonRuntime(SIZE, "bare", hosts={"allowed.test:80": f"127.0.0.1:{web}"})
    runtime.start()
    yield runtime
    runtime.close()


@pytest.fixture(scope="module")
def v8(web: int) -> Iterator[JailedRuntime]:
    runtime = V8Runtime(SIZE, hosts={"allowed.test:80": f"127.0.0.1:{web}"})
    runtime.start()
    yield runtime
    runtime.close()


def run(
    runtime: JailedRuntime, code: str, permissions: Permissions | None = None, language: str = "python", **task: Any
) -> Result:
    permissions = permissions or Permissions()
    arm = "native" if language == "python" else "isolate"
    given = Task(code, language, permissions=permissions, **task)
    return runtime.execute(given, arm, Grant("tester", Trust.VERIFIED, permissions), Watch())


def test_files_go_in_and_come_out(python: JailedRuntime) -> None:
    code = "open('/out/b.txt', 'w').write(open('/in/deep/a.txt').read().upper())"
    result = run(python, code, files={"deep/a.txt": b"hello"})
    assert result.unwrap() == 5
    assert result.files == {"b.txt": b"HELLO"}


def test_what_goes_in_cannot_be_changed(python: JailedRuntime) -> None:
    for attempt in ("open('/in/a', 'a')", "__import__('os').unlink('/in/a')", "open('/in/new', 'w')"):
        result = run(python, attempt, files={"a": b"x"})
        assert "Error" in str(result.error), attempt


def test_files_come_out_of_a_task_that_failed_too(python: JailedRuntime) -> None:
    result = run(python, "with open('/out/log', 'w') as f: f.write('so far')\n1 / 0")
    assert result.files == {"log": b"so far"}


def test_links_in_out_are_refused_and_named(python: JailedRuntime) -> None:
    result = run(python, "import os\nos.symlink('/etc/passwd', '/out/l')\nos.mkdir('/out/d')")
    assert result.ok
    assert result.files == {}
    assert len(result.refused_files) == 1


def test_granted_folders_are_read_and_written_by_relative_paths(python: JailedRuntime, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == Path.cwd().stat().st_uid and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1,2")
    permissions = Permissions(filesystem=Filesystem(read=(f"{tmp_path}/data/*.csv",), write=(f"{tmp_path}/out/**",)))
    code = "with open('out/sum.txt', 'w') as f: f.write(str(sum(map(int, open('data/a.csv').read().split(',')))))"
    result = run(python, code, permissions, folder=str(tmp_path))
    assert result.ok, result.error
    assert (tmp_path / "out" / "sum.txt").read_text() == "3"


def test_a_task_that_fails_leaves_the_host_as_it_was(python: JailedRuntime, tmp_path: Path) -> None:
    permissions = Permissions(filesystem=Filesystem(write=(f"{tmp_path}/**",)))
    result = run(python, f"with open('{tmp_path}/x', 'w') as f: f.write('half')\n1 / 0", permissions)
    assert not result.ok
    assert list(tmp_path.iterdir()) == []


def test_a_grant_of_what_is_not_there_is_refused_by_name(python: JailedRuntime, tmp_path: Path) -> None:
    permissions = Permissions(filesystem=Filesystem(read=(f"{tmp_path}/nothing/**",)))
    with pytest.raises(InvalidPermissions, match="No such file"):
        run(python, "1", permissions)
    assert run(python, "1 + 1").unwrap() == 2


def test_more_than_the_disk_is_refused_before_it_runs(python: JailedRuntime, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(3 * MiB))
    permissions = Permissions(filesystem=Filesystem(read=(f"{tmp_path}/*.bin",)), disk_bytes=2 * MiB)
    with pytest.raises(DiskLimitExceeded, match="do not fit"):
        run(python, "1", permissions)


def test_the_disk_is_as_large_as_granted(python: JailedRuntime) -> None:
    code = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nopen('/tmp/x', 'wb').write(bytes(3 << 20))"
    assert "OSError" in str(run(python, code, Permissions(disk_bytes=2 * MiB)).error)
    assert run(python, code, Permissions(disk_bytes=8 * MiB)).unwrap() == 3 << 20


def test_a_granted_host_is_reached_by_a_client_that_knows_nothing_of_it(python: JailedRuntime) -> None:
    permissions = Permissions(network=Network(("allowed.test",)))
    code = (
        "import urllib.request, socket\n"
        "plain = socket.create_connection(('allowed.test', 80))\n"
        "plain.sendall(b'GET / HTTP/1.1\\r\\nHost: allowed.test\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "[urllib.request.urlopen('http://allowed.test/').read().decode(), plain.recv(12).decode()]"
    )
    result = run(python, code, permissions)
    assert result.unwrap() == ["hello from allowed.test", "HTTP/1.1 200"]
    assert result.isolation.network == "allow-list"


def test_every_decision_about_a_connection_is_reported(python: JailedRuntime) -> None:
    said: list[tuple[str, Any]] = []
    python.on_connection = lambda principal, record: said.append((principal, record))
    try:
        code = (
            "import urllib.request\n"
            "urllib.request.urlopen('http://allowed.test/').read()\n"
            "try:\n    urllib.request.urlopen('http://evil.test/')\nexcept Exception as error:\n    print(error)"
        )
        result = run(python, code, Permissions(network=Network(("allowed.test",))), label="job")
        assert "403" in result.stdout
    finally:
        python.on_connection = lambda principal, record: None
    steps = [(principal, record["step"], record["host"]) for principal, record in said]
    assert ("tester", "allowed", "allowed.test") in steps
    assert ("tester", "denied", "evil.test") in steps
    assert all(record["label"] == "job" for _, record in said)


@pytest.mark.parametrize(
    "attempt",
    [
        "socket.create_connection(('127.0.0.1', PORT), 2)",
        "socket.create_connection(('evil.test', 80), 2)",
        "socket.socket(socket.AF_INET6, socket.SOCK_STREAM)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "socket.socket(socket.AF_UNIX)",
        "socket.socket().bind(('127.0.0.1', 9999))",
        "socket.socket().listen()",
    ],
)
def test_nothing_else_is_reached(python: JailedRuntime, web: int, attempt: str) -> None:
    code = f"import socket\n{attempt.replace('PORT', str(web))}\n'REACHED'"
    result = run(python, code, Permissions(network=Network(("allowed.test",))))
    assert result.error is not None
    assert any(word in str(result.error) for word in ("Error", "gaierror"))


def test_without_a_grant_there_is_no_socket(python: JailedRuntime) -> None:
    result = run(python, "import socket\nsocket.socket()")
    assert "PermissionError" in str(result.error)
    assert "network.allowed_hosts" in str(result.error.remedy if result.error else "")
    assert result.isolation.network == "none"


def test_fetch_reaches_a_granted_host_and_no_other(v8: JailedRuntime) -> None:
    permissions = Permissions(network=Network(("allowed.test",)))
    code = "(async () => (await fetch('http://allowed.test/')).text())()"
    assert run(v8, code, permissions, "javascript").unwrap() == "hello from allowed.test"
    denied = run(v8, code.replace("allowed", "evil"), permissions, "javascript")
    assert denied.error is not None or "403" in str(denied.value)
    refused = run(v8, code, Permissions(), "javascript")
    assert "network.allowed_hosts" in str(refused.error)
