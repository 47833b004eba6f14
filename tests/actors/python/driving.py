"""Drives the Python guest in real sealed children, frame by frame."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runvisor.actors.jail.child import Child
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies.permissions import MiB
from runvisor.policies.values import pack, unpack

REPLY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply of a guest."""

    reply: dict[str, Any]
    stdout: str = ""
    stderr: str = ""
    artifacts: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """By name: the type and the bytes."""

    @property
    def value(self) -> Any:
        assert self.reply["op"] == "value", self.reply
        return unpack(self.reply["value"])

    @property
    def error(self) -> str:
        assert self.reply["op"] == "error", self.reply
        return str(self.reply["type"])

    @property
    def mimes(self) -> list[str]:
        return [mime for mime, _ in self.artifacts.values()]

    def __getattr__(self, name: str) -> str:
        return str(self.reply.get(name, ""))  # what, where, remedy, traceback


def first_frame(**extra: Any) -> dict[str, Any]:
    limits = {"cpu_s": 60, "memory_bytes": 512 * MiB, "output_bytes": MiB}
    return {"label": "", "env": {}, "inputs": pack(None), **limits, **extra}


def run_task(zygote: Zygote, code: str, inputs: Any = None, **frame: Any) -> Answer:
    """Run one task in a child of its own.

    ``packed`` in the frame stands for inputs that are packed already, ``fds`` go beside it.
    """
    fds: Sequence[int] = frame.pop("fds", ())
    packed = frame.pop("packed", None) or pack(inputs)
    child = zygote.spawn(memory_bytes=512 * MiB)
    try:
        child.channel.settimeout(REPLY_TIMEOUT_S)
        child.channel.send(first_frame(code=code, inputs=packed, **frame), fds)
        assert child.channel.receive() == {"op": "started"}
        return _answer(child, child.channel.receive())
    finally:
        child.close()


class Session:
    """A session with one child."""

    def __init__(self, zygote: Zygote) -> None:
        self.child = zygote.spawn(memory_bytes=512 * MiB)
        self.child.channel.settimeout(REPLY_TIMEOUT_S)
        self.child.channel.send(first_frame(mode="session"))
        assert self.child.channel.receive() == {"op": "started"}

    def send(self, code: str, inputs: Any = None, **frame: Any) -> None:
        fds: Sequence[int] = frame.pop("fds", ())
        packed = frame.pop("packed", None) or pack(inputs)
        self.child.channel.send({"op": "cell", "code": code, "inputs": packed, "label": "", **frame}, fds)

    def receive(self) -> Answer:
        return _answer(self.child, self.child.channel.receive())

    def run(self, code: str, inputs: Any = None, **frame: Any) -> Answer:
        self.send(code, inputs, **frame)
        return self.receive()

    def interrupt(self) -> None:
        signal.pidfd_send_signal(self.child.pidfd, signal.SIGINT)

    def wait_for_output(self, text: bytes) -> None:
        """Wait until the running cell has printed a text."""
        seen = b""
        while text not in seen:
            assert select.select([self.child.stdout_fd], [], [], REPLY_TIMEOUT_S)[0], "the cell does not print"
            seen += os.read(self.child.stdout_fd, 65536)

    def close(self) -> None:
        self.child.close()


def _answer(child: Child, reply: dict[str, Any] | None) -> Answer:
    assert reply is not None, "the guest died"
    artifacts = {name: (mime, data) for name, mime, data in reply.get("artifacts", [])}
    assert len(artifacts) == len(reply.get("artifacts", [])), "two artifacts of one name"
    return Answer(reply, _read(child.stdout_fd), _read(child.stderr_fd), artifacts)


def _read(fd: int) -> str:
    chunks: list[bytes] = []
    while select.select([fd], [], [], 0)[0] and (data := os.read(fd, 1 << 16)):
        chunks.append(data)
    return b"".join(chunks).decode()
