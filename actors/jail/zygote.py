"""The host's side of a zygote: start it, have it spawn sealed children, end it."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
from typing import Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail.cgroups import PoolGroup, group_name
from runvisor.actors.jail.child import READY_TIMEOUT_S, Child
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.uids import UIDS
from runvisor.policies.errors import ProtocolError, SpawnFailed, WorkerCrashed

_EXIT_TIMEOUT_S: Final = 5.0
_ENVIRONMENT: Final = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "TZ": "UTC",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "agg",
    "MPLCONFIGDIR": "/tmp",
}
"""All that a zygote's guests see of an environment: nothing of ours."""

_sequence = itertools.count()


class Zygote:
    """A preloaded process that forks sealed children.

    Started by subprocess with a clean environment; needs root. When the host
    process dies, the zygote and all its children die.

    Args:
        spec: What the children are.
    """

    def __init__(self, spec: JailSpec) -> None:
        self.spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._group: PoolGroup | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._children: dict[int, Child] = {}
        self._spawned: dict[int, tuple[threading.Event, list[Child]]] = {}
        self._pending_uids: dict[int, int] = {}
        self._alive = False

    def start(self, timeout_s: float = 60.0) -> None:
        """Start it and wait until it has preloaded.

        Raises:
            SpawnFailed: It cannot run here; the message says what is missing.
        """
        if os.geteuid() != 0:
            raise SpawnFailed(
                "the jail needs root on this version", self.spec.name, "run as root, or in a container as root"
            )
        try:
            self._group = PoolGroup(group_name(os.getpid(), next(_sequence), self.spec.name))
        except OSError as error:
            raise SpawnFailed(
                str(error), self.spec.name, "make the cgroup file system writable for this process"
            ) from None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._control = FrameSocket(ours)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in close()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-m",
                "runvisor.actors.jail.zygote_process",
                str(theirs.fileno()),
                str(self._group.fd),
                str(self._group.parent_fd),
                self._group.path.name,
                self.spec.to_json(),
            ],
            pass_fds=(theirs.fileno(), self._group.fd, self._group.parent_fd),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
        theirs.close()
        self._control.settimeout(timeout_s)
        try:
            message = self._control.receive()
        except (OSError, ProtocolError):
            message = None
        self._control.settimeout(None)
        if message is None or message.get("op") != "ready":
            reason = (message or {}).get("what") or self._said() or f"no answer in {timeout_s} s"
            self.close()
            raise SpawnFailed(f"the {self.spec.name} zygote did not start: {reason}", "jail")
        self._alive = True
        threading.Thread(target=self._read, name=f"zygote-{self.spec.name}", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it can spawn."""
        return self._alive

    def spawn(self, *, memory_bytes: int, disk_bytes: int | None = None) -> Child:
        """Return a new child, sealed and waiting for its task.

        Args:
            memory_bytes: Its first memory limit, beyond its warm state.
            disk_bytes: Size of its scratch; None is the spec's.

        Raises:
            SpawnFailed: It could not be made; the zygote may be dead (see `alive`).
        """
        number = next(self._numbers)
        uid = UIDS.take()
        done: tuple[threading.Event, list[Child]] = (threading.Event(), [])
        with self._lock:
            if not self._alive:
                UIDS.give_back(uid)
                raise SpawnFailed(f"the {self.spec.name} zygote is not running", "jail")
            self._spawned[number] = done
            self._pending_uids[number] = uid
            try:
                self._control.send(
                    {
                        "op": "spawn",
                        "child": number,
                        "uid": uid,
                        "scratch_bytes": disk_bytes or self.spec.scratch_bytes,
                    }
                )
            except OSError:
                self._alive = False
        done[0].wait(READY_TIMEOUT_S)
        if not done[1]:
            raise SpawnFailed(f"the {self.spec.name} zygote did not answer", "jail", self._said())
        child = done[1][0]
        try:
            child.wait_ready()
            child.limit_memory(memory_bytes)
        except (SpawnFailed, WorkerCrashed, OSError) as error:
            child.close()
            raise SpawnFailed(f"no {self.spec.name} instance: {error}", "jail") from None
        return child

    def close(self) -> None:
        """End it and every child, and remove its cgroup; closing twice is fine."""
        process, self._process = self._process, None
        if process is None:
            return
        self._alive = False
        with contextlib.suppress(OSError):
            self._control._socket.shutdown(socket.SHUT_RDWR)
        try:
            process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in list(self._children.values()):
            child.close()
        self._control.close()
        self._errors.close()
        if self._group is not None:
            self._group.close()

    def _said(self) -> str:
        try:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        except ValueError:
            return ""
        return lines[-1] if lines else ""

    def _read(self) -> None:
        """Sort what the zygote says: children that came, and children that went."""
        assert self._group is not None
        try:
            while True:
                message, fds = self._control.receive_with_fds()
                if message is None:
                    break
                number = int(message["child"])
                if message["op"] == "spawned":
                    uid = self._pending_uids.pop(number)
                    child = Child(number, int(message["pid"]), uid, fds, self._group.slot(str(number)))
                    self._children[number] = child
                    event, box = self._spawned.pop(number)
                    box.append(child)
                    event.set()
                elif message["op"] == "exited":
                    gone = self._children.pop(number, None)
                    if gone is not None:
                        gone.note_exit(message)
        except (OSError, ProtocolError, KeyError, ValueError):
            pass
        finally:
            self._alive = False
            for event, _ in list(self._spawned.values()):
                event.set()
            for child in list(self._children.values()):
                child.kill()
                child.note_exit(None)
