"""The suite bites: for each layer an attack that fails with it, and succeeds without it.

The layers that overlap with the one in question are off both times, so that
nothing else stops the attack. It aims at nothing but our own canaries.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from runvisor.actors.jail.child import Child
from runvisor.actors.jail.egress.cgroup_probe import find_obstacle
from runvisor.actors.jail.egress.plan import NetworkPlan
from runvisor.actors.jail.mounts import View
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import EGRESS_FILTER, LAYERS, JailSpec
from runvisor.actors.jail.standing import Standing, find_standing
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.permissions import MiB
from tests.escapes.canaries import Canaries

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    pytest.mark.skipif(
        find_standing() is not Standing.ROOT,
        reason="only root has every layer to leave out, and makes files of two users and a setuid program",
    ),
]
PRISONER: Final = JailSpec(
    "prisoner", "actors.jail.prisoner", import_from=(str(Path(__file__).resolve().parents[1]),), scratch_bytes=8 * MiB
)
_MOUNTS, _LANDLOCK, _SECCOMP = "mount namespace, read-only root", "landlock", "seccomp allow-list"
_PRELUDE: Final = """
import ctypes, os, resource, socket, subprocess, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def spin():
    while True:
        pass
def share_of_a_core():
    for _ in range(4):
        threading.Thread(target=spin, daemon=True).start()
    began, before = time.monotonic(), time.process_time()
    time.sleep(1)
    return (time.process_time() - before) / (time.monotonic() - began)
"""


@dataclass(frozen=True, slots=True)
class Bite:
    """One layer, what else would stop the attack, and the attack."""

    layer: str
    overlapping: tuple[str, ...]
    attack: str
    """An expression; sees ``host``, a mapping of what the host's canaries are called."""
    stopped: object
    """Its value, or the name of what it raises, with the layer on."""
    succeeds: object
    """The same with it off; a text in braces names a field of ``host``."""
    cores: float | None = None
    """A share of CPU time that is small enough to tell from a busy machine."""
    hosts: tuple[str, ...] = ()
    """What is granted to the attacker."""


BITES: Final = [
    Bite(
        "pid namespace",
        ("own uid", "no capabilities", _LANDLOCK),
        "os.kill(host['sibling'], 0)",
        "ProcessLookupError",
        None,
    ),
    Bite("pid namespace", (), "os.getpid() == 1 and os.getppid() == 0", True, False),
    Bite(_MOUNTS, (_LANDLOCK,), "open(host['secret']).read()", "FileNotFoundError", "{token}"),
    Bite(_MOUNTS, (_LANDLOCK, "own uid", "no capabilities"), "os.access(host['folder'], os.W_OK)", False, True),
    Bite(
        "network namespace, empty",
        (_SECCOMP, _LANDLOCK),
        "socket.socket().connect(('127.0.0.1', host['port']))",
        "OSError",
        None,
    ),
    Bite(
        "network namespace, empty",
        (_SECCOMP, _LANDLOCK),
        "socket.socket(socket.AF_UNIX).connect(chr(0) + host['socket'])",
        "ConnectionRefusedError",
        None,
    ),
    Bite("ipc and uts namespaces", (_SECCOMP,), "libc.shmget(host['shm'], 4096, 0o666) >= 0", False, True),
    Bite("ipc and uts namespaces", (), "os.stat('/proc/self/ns/uts').st_ino == host['uts']", False, True),
    Bite("rlimits", (), "len([os.dup(0) for _ in range(500)])", "OSError", 500),
    Bite("rlimits", (), "open('/tmp/big', 'wb').truncate(64 << 20)", "OSError", 64 << 20),
    Bite(
        "no_new_privs",
        (_SECCOMP, _MOUNTS, _LANDLOCK),
        "subprocess.run([host['setuid'], '-u'], capture_output=True).stdout == b'0\\n'",
        False,
        True,
    ),
    Bite(_LANDLOCK, (), "'usr' in os.listdir('/')", "PermissionError", True),
    Bite(_LANDLOCK, (), "os.close(os.open('/proc/self/comm', os.O_WRONLY))", "PermissionError", None),
    Bite("own uid", (_MOUNTS, _LANDLOCK), "open(host['of root']).read()", "PermissionError", "{token}"),
    Bite(
        "no capabilities",
        ("own uid", _MOUNTS, _LANDLOCK),
        "open(host['of nobody']).read()",
        "PermissionError",
        "{token}",
    ),
    Bite("no capabilities", ("own uid", _SECCOMP), "os.chown('/out', 12345, 12345)", "PermissionError", None),
    Bite(_SECCOMP, (), "os.close(os.memfd_create('x'))", "PermissionError", None),
    Bite(_SECCOMP, (), "socket.socket().close()", "PermissionError", None),
    Bite(_SECCOMP, (), "os.waitstatus_to_exitcode(os.waitpid(os.fork() or os._exit(7), 0)[1])", "PermissionError", 7),
    Bite("memory cgroup", (), "len(b'1' * (200 << 20))", "killed", 200 << 20),
    Bite("cpu cgroup", (), "share_of_a_core() < 0.1", True, False, cores=0.03),
    Bite(
        EGRESS_FILTER,
        (_MOUNTS, _LANDLOCK, _SECCOMP),
        "socket.socket(socket.AF_UNIX).connect(host['folder'] + '/socket')",
        "PermissionError",
        None,
        hosts=("canary.invalid",),
    ),
    Bite(
        EGRESS_FILTER,
        (_LANDLOCK, _SECCOMP),
        "len([socket.create_server(('', 9999)), socket.create_connection(('127.0.0.1', 9999))])",
        "PermissionError",
        2,
        hosts=("canary.invalid",),
    ),
    Bite(
        EGRESS_FILTER,
        ("own uid", "no capabilities", _LANDLOCK, _SECCOMP),
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()",
        "PermissionError",
        None,
        hosts=("canary.invalid",),
    ),
]


@pytest.fixture(scope="module")
def host(canaries: Canaries) -> Iterator[dict[str, Any]]:
    """Names of the canaries, and three more files: root's, nobody's, and a harmless setuid program."""
    with tempfile.TemporaryDirectory(prefix="runvisor-layers-") as folder:
        yield names_of(canaries, Path(folder))


def names_of(canaries: Canaries, folder: Path) -> dict[str, Any]:
    """Make the files, and say what everything is called."""
    folder.chmod(0o755)
    for name, owner in (("of root", 0), ("of nobody", 65534)):
        file = folder / name
        file.write_text(canaries.tokens["file"])
        file.chmod(0o600)
        shutil.chown(file, owner, owner)
    program = folder / "id"
    shutil.copyfile("/usr/bin/id", program)
    program.chmod(0o4755)
    return {
        "secret": str(canaries.secret),
        "folder": str(canaries.folder),
        "token": canaries.tokens["file"],
        "port": canaries.port,
        "socket": canaries.name,
        "shm": canaries.shm_key,
        "uts": Path("/proc/self/ns/uts").stat().st_ino,
        "of root": str(folder / "of root"),
        "of nobody": str(folder / "of nobody"),
        "setuid": str(program),
    }


class Jails:
    """Zygotes of each combination of layers that was asked for."""

    def __init__(self) -> None:
        self._started: list[Zygote] = []
        self.without = cache(self._without)

    def _without(self, layers: frozenset[str], cores: float | None) -> Zygote:
        zygote = Zygote(replace(PRISONER, without=layers, cores=cores or PRISONER.cores))
        self._started.append(zygote)
        zygote.start()
        return zygote

    def close(self) -> None:
        for zygote in self._started:
            zygote.close()


@pytest.fixture(scope="module")
def jails() -> Iterator[Jails]:
    jails = Jails()
    yield jails
    jails.close()


def attempt(zygote: Zygote, bite: Bite, host: dict[str, Any]) -> tuple[bool, object]:
    """Make the attack in a child of its own, beside a sibling.

    Returns:
        Whether the child has the layer, and the attack's value or the name of its failure.
    """
    network = NetworkPlan.of(bite.hosts) if bite.hosts else None
    view = View() if bite.hosts else None
    children = [zygote.spawn(memory_bytes=64 * MiB, network=network, view=view) for _ in range(2)]
    try:
        return bite.layer in children[0].layers, _ask(children[0], bite.attack, {**host, "sibling": children[1].pid})
    finally:
        for child in children:
            child.close()


def _ask(child: Child, expression: str, host: dict[str, Any]) -> object:
    child.limit_memory(64 * MiB)
    child.channel.settimeout(20)
    child.channel.send({"do": f"{_PRELUDE}\nhost = {host!r}", "value": expression})
    answer = child.channel.receive()
    if answer is None:
        return "killed"
    return answer.get("value", answer.get("error"))


def test_each_layer_has_an_attack() -> None:
    assert {bite.layer for bite in BITES} == {*LAYERS, EGRESS_FILTER}


@pytest.mark.parametrize("bite", BITES, ids=lambda bite: f"{bite.layer}: {bite.attack[:30]}")
def test_an_attack_fails_with_the_layer_and_succeeds_without_it(
    jails: Jails, bite: Bite, host: dict[str, Any], canaries: Canaries
) -> None:
    if bite.layer == EGRESS_FILTER and find_obstacle()[0]:
        pytest.skip(find_obstacle()[0])
    with_it = jails.without(frozenset(bite.overlapping), bite.cores)
    assert attempt(with_it, bite, host) == (True, bite.stopped)
    assert canaries.touched() == []

    without_it = jails.without(frozenset((*bite.overlapping, bite.layer)), bite.cores)
    wanted = bite.succeeds.format(**host) if isinstance(bite.succeeds, str) else bite.succeeds
    assert attempt(without_it, bite, host) == (False, wanted)
    canaries.touched()
