"""A grant of one host opens nothing else: not the host's loopback, not its unix sockets, no other kind of socket."""

from __future__ import annotations

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.permissions import Network
from tests.escapes.attack import ATTACKS, Attack
from tests.escapes.range import Range
from tests.standing import needs_namespaces

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    needs_namespaces,
]
_PRELUDE = (ATTACKS / "py" / "_prelude.py.txt").read_text()
_TRY = """
import errno
said = []
def wanted(action):
    try:
        got = action()
    except OSError as error:
        said.append(errno.errorcode.get(error.errno, type(error).__name__))
    else:
        print("ESCAPED", got)
port, name = int(os.environ["CANARY_PORT"]), os.environ["CANARY_SOCKET"]
"""
ATTEMPTS = {
    "the host's loopback": "for host in "
    "('127.0.0.1', '127.9.9.9', '0.0.0.0', '::ffff:127.0.0.1', '::1', 'localhost'):\n"
    "    wanted(lambda: socket.create_connection((host, port), timeout=1))",
    "unix sockets": "for place in (chr(0) + name, chr(0) + 'proto-host', "
    "os.path.dirname(os.environ['CANARY_FILE']) + '/socket'):\n"
    "    wanted(lambda: socket.socket(socket.AF_UNIX).connect(place))",
    "other kinds of sockets": "for family in range(48):\n    for kind in (1, 2, 3, 4, 5, 6, 10):\n"
    "        if (family, kind) not in ((2, 1), (10, 1)):\n"
    "            wanted(lambda: call((41, 198), family, kind, 0))",
    "listening": "wanted(lambda: socket.create_server(('127.0.0.1', 0)))\n"
    "wanted(lambda: socket.create_server(('0.0.0.0', port)))",
    "names that are not granted": "for host in ('example.com', 'canary.invalid.example.com', 'other.invalid'):\n"
    "    wanted(lambda: socket.getaddrinfo(host, 80))",
    "the proxy to elsewhere": "import urllib.request, urllib.error\n"
    "for url in (f'http://127.0.0.1:{port}/', f'http://localhost:{port}/', f'http://[::1]:{port}/',\n"
    "            f'http://2130706433:{port}/', f'http://0x7f.1:{port}/', 'http://169.254.169.254/',\n"
    "            f'http://canary.invalid:80@127.0.0.1:{port}/'):\n"
    "    wanted(lambda: urllib.request.urlopen(url, timeout=2).status)",
}


@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_granted_host_is_no_way_to(python_range: Range, what: str) -> None:
    code = f"{_PRELUDE}{_TRY}{ATTEMPTS[what]}\nlen(said)"
    permissions = {"timeout_s": 20.0, "network": Network(("canary.invalid",))}
    aftermath = python_range.run(Attack(what, "python", code, "ok", permissions))
    assert (aftermath.ending, aftermath.harm) == ("ok", []), (aftermath.result.error, aftermath.result.stdout)
    assert aftermath.result.value > 0
