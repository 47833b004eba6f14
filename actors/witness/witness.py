"""The host's side of the witness: one jailed process per supervisor counts, and pools on its node get accounts of it.

Nothing is loaded into the kernel before `Witness.start`, and nothing stays when the
last of witness and pools is gone: attachments live as long as their descriptors.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.channel.unix import peer_uid
from runvisor.actors.ebpf import bcc_package, btf
from runvisor.actors.ebpf.compiler import Compiler
from runvisor.actors.jail import kernel
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.unified import unified_mount
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import PoolSize
from runvisor.actors.witness.accounts import settle
from runvisor.actors.witness.programs import ACCOUNTS, PROGRAMS, SHARED, text
from runvisor.actors.witness.registered import Registered
from runvisor.policies.errors import ProtocolError, RunvisorError, SpawnFailed
from runvisor.policies.permissions import MiB

_GUEST: Final = "runvisor.actors.witness.guest"
_CAPABILITIES: Final = frozenset(("CAP_BPF", "CAP_PERFMON"))
_MEMORY_BYTES: Final = 96 * MiB
"""For the maps, mostly: some 30 MiB, and the verifier."""
_COMPILE_S: Final = 30.0
_ATTACH_S: Final = 20.0
_CLIENT_S: Final = 5.0
_AGAIN_S: Final = 0.1
_DESCRIPTORS: Final = len(SHARED) + len(PROGRAMS)
_REMEDY: Final = (
    "run as root with CAP_BPF and CAP_PERFMON (docker: --privileged, or --cap-add BPF --cap-add PERFMON), "
    'or leave observability="kernel" out'
)


class Witness:
    """Counts in the kernel what registered sandboxes do, for all pools of a node.

    While it runs, every process of the machine pays for a look-up at each of its
    system calls and switches.
    """

    def __init__(self) -> None:
        self._zygote = Zygote(JailSpec("witness", _GUEST, capabilities=_CAPABILITIES, syscalls="bpf", cores=None))
        self._child: Child | None = None
        self._folder: Path | None = None
        self._fds: list[int] = []
        self._free = set(range(ACCOUNTS))
        self._clients: dict[int, tuple[FrameSocket, set[int]]] = {}
        self._thread: threading.Thread | None = None

    @property
    def path(self) -> str:
        """The socket where pools ask for accounts."""
        assert self._folder is not None
        return str(self._folder / "witness.sock")

    @property
    def pid(self) -> int:
        """The process that holds the programs."""
        assert self._child is not None
        return self._child.pid

    @property
    def free_accounts(self) -> int:
        """How many more executions could be counted at once, by pools to come."""
        return len(self._free)

    def registered(self) -> Iterator[tuple[int, int]]:
        """Yield the id of each sandbox that is counted now, and the number of its account."""
        yield from self._registered.items()

    def start(self) -> None:
        """Compile, load and attach the programs, and listen; about a second.

        Raises:
            SpawnFailed: It cannot be done here; says what is missing and how to get it.
        """
        _check_machine()
        try:
            instructions = _compile()
            self._zygote.start()
            self._child = self._zygote.spawn(memory_bytes=_MEMORY_BYTES)
            self._fds = self._attach(self._child, instructions)
        except RunvisorError as error:
            self.close()
            if isinstance(error, SpawnFailed):
                raise
            raise SpawnFailed(f"the programs that count cannot be made: {error.what}", "witness", _REMEDY) from None
        ids, _, change = self._fds[: len(SHARED)]
        self._registered = Registered(os.dup(ids), os.dup(change))
        self._folder = Path(tempfile.mkdtemp(prefix="runvisor-witness-"))  # mkdtemp makes it 0700
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._stop, self._stopping = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="witness-door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the process and everything attached, and have the pools do the same; closing twice is fine."""
        thread, self._thread = self._thread, None
        if thread is not None:
            os.close(self._stopping)
            thread.join()
            os.close(self._stop)
        if self._child is not None:
            self._child.close()
        self._zygote.close()

    def _attach(self, child: Child, instructions: dict[str, bytes]) -> list[int]:
        try:
            child.channel.settimeout(_ATTACH_S)
            child.channel.send({"instructions": instructions, "types": _types()})
            answer, fds = child.channel.receive_with_fds(_DESCRIPTORS)
            child.channel.settimeout(None)
        except (OSError, ProtocolError) as error:
            raise SpawnFailed(f"the process that counts does not come up: {error}", "witness", _REMEDY) from None
        if answer is None or answer.get("op") != "attached" or len(fds) != _DESCRIPTORS:
            for fd in fds:
                os.close(fd)
            what = (answer or {}).get("what", "it has ended")
            raise SpawnFailed(f"the kernel does not let sandboxes be counted: {what}", "witness", _REMEDY)
        return fds

    def _serve(self) -> None:
        """Give accounts to pools until the process that counts ends, or all is closed."""
        assert self._child is not None
        assert self._folder is not None
        poll = select.poll()
        for fd in (self._listener.fileno(), self._child.pidfd, self._stop):
            poll.register(fd, select.POLLIN)
        try:
            while True:
                for fd, _ in poll.poll():
                    if fd in (self._stop, self._child.pidfd):
                        return
                    if fd == self._listener.fileno():
                        if (client := self._admit()) is not None:
                            poll.register(client, select.POLLIN)
                    elif fd in self._clients:  # it sends nothing more: this is its end
                        poll.unregister(fd)
                        self._dismiss(fd)
        finally:
            self._listener.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            # What their pools still run stays registered, and is counted whole.
            for channel, _ in self._clients.values():
                channel.close()
            self._clients.clear()
            for fd in self._fds:
                os.close(fd)
            self._registered.close()

    def _admit(self) -> int | None:
        """Take one pool in; return the descriptor by which it is known."""
        try:
            connection, _ = self._listener.accept()
        except OSError:  # EMFILE, as a rule: the pool stays in line
            time.sleep(_AGAIN_S)
            return None
        channel = FrameSocket(connection)
        channel.settimeout(_CLIENT_S)
        numbers: set[int] = set()
        try:
            request = channel.receive() if peer_uid(connection) in (0, os.geteuid()) else None
            wanted = int(request["accounts"]) if request is not None and request.get("op") == "open" else 0
            if not 0 < wanted <= len(self._free):
                channel.send({"op": "refused", "what": f"{len(self._free)} of {ACCOUNTS} accounts are left"})
                channel.close()
                return None
            numbers = {self._free.pop() for _ in range(wanted)}
            channel.send({"op": "accounts", "numbers": sorted(numbers)}, self._fds)
        except (OSError, ProtocolError, KeyError, ValueError, TypeError):
            self._free |= numbers
            channel.close()
            return None
        self._clients[channel.fileno()] = channel, numbers
        return channel.fileno()

    def _dismiss(self, client: int) -> None:
        """Strike off what a pool that is gone left registered."""
        channel, numbers = self._clients.pop(client)
        channel.close()
        self._registered.remove([each for each in self.registered() if each[1] in numbers])
        settle()
        self._free |= numbers


def _check_machine() -> None:
    """Raise for what can be known to be missing, in one line each."""
    if kernel.MACHINE != "x86_64":
        raise SpawnFailed("the kernel counts sandboxes on x86-64 only", "witness", 'leave observability="kernel" out')
    if unified_mount() is None:
        raise SpawnFailed(
            "there is no cgroup v2 hierarchy to know sandboxes by", "witness", "mount -t cgroup2 none /sys/fs/cgroup"
        )
    if bcc_package.folder() is None:
        raise SpawnFailed("there is no bcc, which compiles what counts", "witness", bcc_package.REMEDY)


@cache
def _types() -> dict[str, int]:
    """Return what the kernel calls the tracepoints of the programs.

    Raises:
        SpawnFailed: It does not say.
    """
    try:
        found = btf.tracepoint_ids(btf.VMLINUX.read_bytes(), PROGRAMS.values())
    except (OSError, ValueError):
        found = {}
    if len(found) < len(PROGRAMS):
        raise SpawnFailed("the kernel does not describe its tracepoints", "witness", "use a kernel with BTF")
    return found


@cache
def _compile() -> dict[str, bytes]:
    compiler = Compiler(PoolSize(minimum=1, maximum=1))
    try:
        compiler.start()
        return compiler.instructions(text(), "", _COMPILE_S, lambda: None, tuple(PROGRAMS))
    finally:
        with contextlib.suppress(RunvisorError):
            compiler.close()
