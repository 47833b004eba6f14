"""A process in a cgroup with nothing else around it: neither namespace nor seccomp nor Landlock, and as root.

It evaluates what it is told, one expression per line; what stops it is what its
cgroup has. Run as a program, it serves its standard input.
"""

from __future__ import annotations

import ast
import errno
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

_IPV6_FREEBIND = 78


class Member:
    """A process that tries things.

    Args:
        group: Joined before anything is tried; None stays where it is.
    """

    def __init__(self, group: Path | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-IS", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        if group is not None:
            (group / "cgroup.procs").write_text(str(self.pid))

    def attempt(self, expression: str) -> object:
        """Return the value of an expression, or the name of the error number that it raises."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        answer: object = ast.literal_eval(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it, so that its group is empty."""
        self._process.kill()
        self._process.communicate()


def datagram(port: int) -> bytes:
    """Return a UDP datagram as a raw socket sends it."""
    return struct.pack("!HHHH", 9, port, 8 + 6, 0) + b"forged"


def from_address(sock: socket.socket, address: str) -> socket.socket:
    """Return an IPv6 socket that sends from an address that is not this machine's: its bytes may look like IPv4's."""
    sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    sock.bind((address, 0))
    return sock


def serve() -> None:
    """Evaluate line by line."""
    names: dict[str, Any] = {"socket": socket, "os": os, "datagram": datagram, "from_address": from_address}
    for line in sys.stdin:
        try:
            answer = eval(line, names)
        except OSError as error:
            answer = errno.errorcode.get(error.errno or 0, type(error).__name__)
        print(repr(answer), flush=True)


if __name__ == "__main__":
    serve()
