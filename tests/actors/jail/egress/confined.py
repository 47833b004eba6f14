"""A networked guest made by hand: run with a socket, the patterns and a certificate; does what it is told.

Beside the plan it has what a jail adds for a networked guest: system calls
for TCP over IPv4 only, and Landlock for the plan's ports only.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import sys
import traceback
from pathlib import Path

import pyseccomp as libseccomp

from runvisor.actors.jail import kernel
from runvisor.actors.jail.egress import inside
from runvisor.actors.jail.egress.plan import NetworkPlan

_CONNECT_TCP, _NET_PORT = 1 << 1, 2


def _show(plan: NetworkPlan) -> None:
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", "/mnt", "tmpfs")
    for number, (path, text) in enumerate(plan.files.items()):
        source = Path(f"/mnt/{number}")
        source.write_text(text)
        kernel.mount(str(source), path, None, kernel.MS_BIND)


def _confine(plan: NetworkPlan) -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    attributes = struct.pack("<QQ", 0, 3)
    ruleset = kernel.syscall(444, attributes, len(attributes), 0, what="landlock_create_ruleset")
    for port in plan.ports:
        rule = struct.pack("<QQ", _CONNECT_TCP, port)
        kernel.syscall(445, ruleset, _NET_PORT, rule, 0, what="landlock_add_rule")
    kernel.syscall(446, ruleset, 0, what="landlock_restrict_self")
    os.close(ruleset)
    rules = libseccomp.SyscallFilter(defaction=libseccomp.ALLOW)
    refuse, wrong = libseccomp.ERRNO(errno.EPERM), libseccomp.NE
    for name in ("bind", "listen", "accept", "accept4"):
        rules.add_rule(refuse, name)
    rules.add_rule(refuse, "socket", libseccomp.Arg(0, wrong, socket.AF_INET))
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET, socket.SOCK_RDM):
        rules.add_rule(refuse, "socket", libseccomp.Arg(1, libseccomp.MASKED_EQ, 0xF, kind))
    rules.add_rule(refuse, "socket", libseccomp.Arg(2, libseccomp.GT, socket.IPPROTO_TCP))
    rules.load()


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    plan = NetworkPlan.of(tuple(json.loads(sys.argv[2])))
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET)
    listeners = inside.prepare(plan)
    socket.send_fds(channel, [b"x"], [listener.fileno() for listener in listeners])
    for listener in listeners:
        listener.close()
    _show(plan)
    os.environ.update(plan.environment, SSL_CERT_FILE=sys.argv[3], REQUESTS_CA_BUNDLE=sys.argv[3])
    _confine(plan)
    while code := channel.recv(1 << 16):
        space: dict[str, object] = {}
        try:
            exec(code, space)
            answer = str(space.get("answer"))
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        channel.sendall(answer.encode())


if __name__ == "__main__":
    main()
