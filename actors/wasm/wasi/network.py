"""The import module ``runvisor``: HTTP to granted hosts, the only way of a guest to a network.

No socket is made here: a question goes to another process (`http_guest`), which
the grant's broker stands before. Without a grant every function is there, and
refuses.
"""

from __future__ import annotations

import select
import socket
from typing import Any, Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.wasm.fastpath import Memory
from runvisor.actors.wasm.wasi.abi import U32, Errno, Failure
from runvisor.actors.wasm.wasi.world import World
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.errors import ProtocolError

WEB_MODULE: Final = "runvisor"
WEB_FUNCTIONS: Final = {
    "http_request": "iiiii",
    "http_head": "iiii",
    "http_read": "iiii",
    "http_close": "i",
    "http_error": "iii",
}
"""Parameters of every function: i is i32. All return an errno of WASI."""
MAX_REQUEST_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 16 * 1024 * 1024
_SLICE_MS: Final = 20
"""How long to wait before looking whether the run was called off."""
_MAX_READ: Final = 1 << 20
_NOT_GRANTED: Final = "no host is granted: name it in network.allowed_hosts"


class Web:
    """A run's end of the stream to the process that makes its requests.

    Args:
        stream: Connected to it; stays the caller's.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._wire = Wire(stream)
        self._poll = select.poll()
        self._poll.register(stream, select.POLLIN)

    def ask(self, world: World, question: Message) -> Message:
        """Ask, and wait for the answer as long as the run may go on.

        Raises:
            Ended: The run's time is over, or it was called off.
            Failure: IO: the other process is gone.
        """
        try:
            self._wire.send(question)
            while not self._poll.poll(_SLICE_MS):
                world.check_time()
            answer = self._wire.receive()
        except (OSError, ProtocolError):
            raise Failure(Errno.IO) from None
        if answer is None:
            raise Failure(Errno.IO)
        return answer


def http_request(
    world: World, memory: Memory, request: int, request_size: int, body: int, body_size: int, out: int
) -> int:
    """Send a request and wait for the head of its answer; give a handle."""
    memory.write(out, bytes(4))
    if request_size > MAX_REQUEST_BYTES or body_size > MAX_BODY_BYTES:
        return Errno.TOO_BIG
    text, data = memory.read(request, request_size), memory.read(body, body_size)
    if world.web is None:
        world.web_error = _NOT_GRANTED
        world.deny("http_request", text[:500].decode(errors="replace"), "no host is granted")
        return Errno.NOTCAPABLE
    left_s = world.deadlines.left_s(world.token)
    answer = world.web.ask(world, {"op": "open", "request": text, "body": data, "left_s": left_s})
    handle = _checked(world, answer).get("handle")
    memory.write(out, U32.pack(int(handle or 0) & 0xFFFFFFFF))
    return Errno.SUCCESS


def http_head(world: World, memory: Memory, handle: int, out: int, room: int, used: int) -> int:
    """Give the head of an answer as JSON; OVERFLOW, and how much room it takes, if there is too little."""
    head = bytes(_asked(world, {"op": "head", "handle": handle}).get("head", b""))
    memory.write(used, U32.pack(len(head)))
    if len(head) > room:
        return Errno.OVERFLOW
    memory.write(out, head)
    return Errno.SUCCESS


def http_read(world: World, memory: Memory, handle: int, out: int, room: int, used: int) -> int:
    """Give what has come of the body, nothing at its end."""
    room = min(room, _MAX_READ)
    memory.write(out + room, b"")
    memory.write(used, bytes(4))
    data = bytes(_asked(world, {"op": "read", "handle": handle, "size": room}).get("data", b""))[:room]
    memory.write(out, data)
    memory.write(used, U32.pack(len(data)))
    return Errno.SUCCESS


def http_close(world: World, handle: int) -> int:
    """Let go of an answer."""
    _asked(world, {"op": "close", "handle": handle})
    return Errno.SUCCESS


def http_error(world: World, memory: Memory, out: int, room: int, used: int) -> int:
    """Give the reason of the last failure, cut to the room there is."""
    text = world.web_error.encode(errors="replace")[:room]
    memory.write(out, text)
    memory.write(used, U32.pack(len(text)))
    return Errno.SUCCESS


def _asked(world: World, question: Message) -> dict[str, Any]:
    if world.web is None:
        raise Failure(Errno.BADF)
    return _checked(world, world.web.ask(world, question))


def _checked(world: World, answer: Message) -> dict[str, Any]:
    if "unknown" in answer:
        raise Failure(Errno.BADF)
    if "refused" in answer:
        world.web_error = str(answer["refused"])[:1000]
        raise Failure(Errno.ACCES)
    if "failed" in answer:
        world.web_error = str(answer["failed"])[:1000]
        world.check_time()
        raise Failure(Errno.IO)
    return dict(answer)
