"""What is left to the broker's process once it is confined: with root's help, and without."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.ordinary_user import run_as_ordinary_user

ATTEMPTS = {
    "read a file of the system": "open('/etc/passwd').read()",
    "read a file of the user": "open({file!r}).read()",
    "write a file": "open('/tmp/written-by-the-broker', 'w')",
    "read another process": "open('/proc/1/environ', 'rb').read()",
    "start a process": "os.fork()",
    "start a program": "os.execv('/bin/true', ['true'])",
    "listen": "socket.create_server(('127.0.0.1', 0))",
    "open a unix socket": "socket.socket(socket.AF_UNIX)",
    "open a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "watch the network": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "signal another process": "os.kill(1, 0)",
    "raise a limit": "resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
}
NEEDS = {
    "look up a name": "socket.getaddrinfo('127.0.0.1', 80)",
    "read the resolver's settings": "open('/etc/resolv.conf').read()",
    "connect": "socket.create_connection(('127.0.0.1', {port}))",
    "start a thread": "threading.Thread(target=int).start()",
}
PROGRAM = """
import json, os, resource, socket, sys, threading
server = socket.create_server(("127.0.0.1", 0))
from runvisor.actors.jail.egress.confinement import confine
confine({uid})
outcomes = {{}}
for name, attempt in {attempts!r}.items():
    try:
        eval(attempt.replace("{{port}}", str(server.getsockname()[1])))
        outcomes[name] = "done"
    except OSError as error:
        outcomes[name] = type(error).__name__
    except ValueError:
        outcomes[name] = "ValueError"
print(json.dumps(outcomes))
"""


def _program(uid: int, file: str) -> str:
    attempts = {name: text.replace("{file!r}", repr(file)) for name, text in {**ATTEMPTS, **NEEDS}.items()}
    return PROGRAM.format(uid=uid, attempts=attempts)


def _check(output: str) -> None:
    outcomes = json.loads(output)
    assert [name for name in ATTEMPTS if outcomes[name] == "done"] == []
    assert [name for name in NEEDS if outcomes[name] != "done"] == []


def test_with_root_at_the_start(tmp_path: object) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    file = f"{tmp_path}/secret"
    with open(file, "w") as secret:
        secret.write("secret")
    done = subprocess.run(
        [sys.executable, "-c", _program(61007, file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    _check(done.stdout)


@pytest.mark.parametrize("user_namespaces", [True, False])
def test_without_root(user_namespaces: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    done = run_as_ordinary_user(["-c", _program(0, "/proc/self/environ")], user_namespaces=user_namespaces)
    assert done.returncode == 0, done.stderr
    _check(done.stdout)


LOOKUP = """
import asyncio, os, select, socket, struct
from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.confinement import confine
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.egress.resolver import SystemResolver

kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWNS)
kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
inside.prepare(NetworkPlan.of(()))
kernel.mount("tmpfs", "/mnt", "tmpfs")
for name, text in (("resolv.conf", "nameserver 127.0.0.1"), ("nsswitch.conf", "hosts: files dns")):
    with open("/mnt/" + name, "w") as file:
        file.write(text + chr(10))
    kernel.mount("/mnt/" + name, "/etc/" + name, None, kernel.MS_BIND)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
reader, writer = os.pipe()
if os.fork() == 0:  # a name server that knows one address for every name, until its parent has ended
    os.close(writer)
    while select.select([server, reader], [], [])[0] == [server]:
        asked, client = server.recvfrom(512)
        end = asked.index(bytes(1), 12) + 5
        is_v4 = asked[end - 3] == 1
        head = asked[:2] + struct.pack(">HHHHH", 0x8180, 1, int(is_v4), 0, 0) + asked[12:end]
        answer = struct.pack(">HHHIH4B", 0xC00C, 1, 1, 60, 4, 8, 8, 8, 8) if is_v4 else b""
        server.sendto(head + answer, client)
    os._exit(0)
os.close(reader)
confine(61007)
print(asyncio.run(SystemResolver().addresses("a.test")))
"""


ROOTLESS = """
import os, socket, threading
from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.egress import EgressBroker
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.namespaces import enter_user_namespace

server = socket.create_server(("127.0.0.1", 0))
def serve():
    sock, _ = server.accept()
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")
    sock.close()
plan = NetworkPlan.of(("allowed.test", "93.184.216.34:81"))
ours, theirs = socket.socketpair()
if os.fork() == 0:
    enter_user_namespace(0, kernel.CLONE_NEWNET)
    listeners = inside.prepare(plan)
    socket.send_fds(theirs, [b"x"], [listener.fileno() for listener in listeners])
    theirs.recv(1)
    client = socket.create_connection(("127.1.0.1", 80))
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: allowed.test\\r\\n\\r\\n")
    theirs.sendall(client.makefile("rb").read())
    os._exit(0)
_, listeners, _, _ = socket.recv_fds(ours, 1, 64)
threading.Thread(target=serve, daemon=True).start()
place = f"127.0.0.1:{server.getsockname()[1]}"
with EgressBroker({"allowed.test": place}) as broker, broker.open(plan, listeners, on_record=print):
    ours.send(b"g")
    print(ours.recv(65536)[-5:])
"""


def test_names_are_still_looked_up() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for a network namespace")
    done = subprocess.run([sys.executable, "-c", LOOKUP], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "['8.8.8.8']\n", done.stderr


def test_the_whole_of_it_works_without_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    done = run_as_ordinary_user(["-c", ROOTLESS], user_namespaces=True)
    assert "b'hello'" in done.stdout, done.stderr
