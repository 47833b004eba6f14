"""Things of the host that no attack may reach, and how to tell whether one did."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import select
import shutil
import socket
from pathlib import Path
from typing import Any, Final

from runvisor.actors.jail.child import Child

SHARED_FOLDER: Final = Path("/tmp/canary")
"""Where attacks written for any sandbox look for a secret."""
_ROOT: Final = Path(__file__).resolve().parents[2]
CHECKOUT_IN_TMP: Final = _ROOT.parts[2] if _ROOT.parts[1] == "tmp" else ""
"""What stands in every /tmp, since a checkout is shown at its own place; empty if it lies elsewhere."""
_SHARED_NAME: Final = "\0proto-host"
_IPC_CREAT, _IPC_RMID, _IPC_STAT = 0o1000, 0, 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.shmat.restype = ctypes.c_void_p
_libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
_libc.shmdt.argtypes = [ctypes.c_void_p]


class Canaries:
    """Bait on the host: files, sockets, shared memory and the environment, all open to every user.

    Args:
        folder: An empty folder in one that everybody may enter; opened to everybody.
    """

    def __init__(self, folder: Path) -> None:
        self.tokens = {place: f"HOST-SECRET-{secrets.token_hex(8)}" for place in ("file", "environment", "memory")}
        self.folder = folder
        folder.chmod(0o755)
        self.secret = folder / "secret.txt"
        self._made_shared_folder = self._share_secret()
        self.secret.write_text(self.tokens["file"])
        self.secret.chmod(0o666)
        os.environ["RUNVISOR_CANARY"] = self.tokens["environment"]
        self._sockets = [self._listen(socket.AF_INET, ("127.0.0.1", 0))]
        self.port = int(self._sockets[0].getsockname()[1])
        self.name = f"runvisor-canary-{os.getpid()}"
        for address in (f"\0{self.name}", str(folder / "socket"), _SHARED_NAME):
            with contextlib.suppress(OSError):  # the shared name may be another test run's
                self._sockets.append(self._listen(socket.AF_UNIX, address))
        letterbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        letterbox.bind(f"\0{self.name}-letters")
        letterbox.setblocking(False)
        self._letterbox = letterbox
        self.shm_key = 0x52000000 | (os.getpid() & 0xFFFF)
        self._shm = _libc.shmget(self.shm_key, 4096, _IPC_CREAT | 0o666)
        if self._shm >= 0:
            address = _libc.shmat(self._shm, None, 0)
            ctypes.memmove(address, self.tokens["memory"].encode() + b"\0", 64)
            _libc.shmdt(address)

    def environment(self) -> dict[str, str]:
        """Return what an attack is told: where to aim."""
        return {
            "CANARY_FILE": str(self.secret),
            "CANARY_PORT": str(self.port),
            "CANARY_SOCKET": self.name,
            "CANARY_SHM": str(self.shm_key),
        }

    def touched(self) -> list[str]:
        """Name what was reached since the last look; empty is good."""
        found = [f"connected to {sock.getsockname()!r}" for sock in self._sockets if self._was_called(sock)]
        with contextlib.suppress(BlockingIOError):
            found.append(f"wrote {self._letterbox.recv(100)!r} to the datagram socket")
        if self.secret.read_text() != self.tokens["file"]:
            found.append("changed the secret file")
        if self._made_shared_folder and sorted(entry.name for entry in SHARED_FOLDER.iterdir()) != ["secret.txt"]:
            found.append("left something in the shared folder")
        if self._shm >= 0:
            address = _libc.shmat(self._shm, None, 0)
            if ctypes.string_at(address) != self.tokens["memory"].encode():
                found.append("wrote to the shared memory")
            _libc.shmdt(address)
        return found

    def leaked(self, *texts: str) -> list[str]:
        """Name the secrets that these texts hold."""
        return [place for place, token in self.tokens.items() if any(token in text for text in texts)]

    def close(self) -> None:
        """Remove all of it."""
        for sock in (*self._sockets, self._letterbox):
            sock.close()
        os.environ.pop("RUNVISOR_CANARY", None)
        if self._shm >= 0:
            _libc.shmctl(self._shm, _IPC_RMID, None)
        if self._made_shared_folder:
            shutil.rmtree(SHARED_FOLDER)

    def _share_secret(self) -> bool:
        """Put the secret where shared attacks look for it; another run's, living or dead, is as good as ours."""
        place = SHARED_FOLDER / "secret.txt"
        try:
            SHARED_FOLDER.mkdir()
            place.write_text(self.tokens["file"])
        except FileExistsError:
            with contextlib.suppress(OSError):
                self.tokens["file"] = place.read_text() or self.tokens["file"]
        except OSError:  # nobody but root may make it here
            pass
        else:
            return True
        return False

    @staticmethod
    def _listen(family: int, address: Any) -> socket.socket:
        sock = socket.socket(family)
        try:
            sock.bind(address)
        except OSError:
            sock.close()
            raise
        if isinstance(address, str) and not address.startswith("\0"):
            Path(address).chmod(0o777)
        sock.listen(16)
        sock.setblocking(False)
        return sock

    @staticmethod
    def _was_called(sock: socket.socket) -> bool:
        try:
            connection, _ = sock.accept()
        except OSError:
            return False
        connection.close()
        return True


_SIBLING: Final = """
import os
marker = bytearray({token!r}.encode())
open("marker", "wb").write(marker)
os.read(3, 1)
[open("marker").read(), marker.decode(), sorted(os.listdir())]
"""


class Sibling:
    """An execution that is alive while others attack, with a file and memory that are its own.

    Args:
        child: A sealed Python child that waits; stays the caller's.
        token: What its file and its memory hold.
    """

    def __init__(self, child: Child, token: str) -> None:
        self._child = child
        self._token = token
        self.pid = child.pid
        child.channel.settimeout(10)
        child.channel.send(
            {
                "mode": "task",
                "code": _SIBLING.format(token=token),
                "inputs": b"\xc0",
                "label": "sibling",
                "language": "python",
                "env": {},
                "cpu_s": 60.0,
                "memory_bytes": 64 << 20,
                "output_bytes": 1 << 16,
                "shared": [],
            }
        )
        assert child.channel.receive() == {"op": "started"}

    @property
    def alive(self) -> bool:
        """Whether nobody has killed it."""
        return not select.select([self._child.pidfd], [], [], 0)[0]

    def report(self) -> list[str]:
        """End it, and name what others did to it."""
        self._child.channel._socket.send(b"x")
        answer = self._child.channel.receive() or {}
        from runvisor.policies.values import unpack

        value = unpack(answer["value"]) if answer.get("op") == "value" else answer
        seen = [name for name in value[2] if name != CHECKOUT_IN_TMP] if isinstance(value, list) else value
        is_untouched = isinstance(value, list) and value[:2] == [self._token] * 2 and seen == ["marker"]
        return [] if is_untouched else [f"the sibling says {value!r}"]
