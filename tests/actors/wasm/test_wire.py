"""One request at a time over a stream, and a peer that does not keep to it."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.channel.frames import encode
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.errors import ProtocolError


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    ours, theirs = socket.socketpair()
    wire = Wire(ours, max_bytes=1 << 20)
    yield wire, theirs
    wire.close()
    theirs.close()


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.integers(0, 9), st.binary(max_size=20_000))))
def test_messages_of_any_size_arrive(message: dict[str, object]) -> None:
    ours, theirs = map(Wire, socket.socketpair())
    sender = threading.Thread(target=ours.send, args=(message,))
    sender.start()
    assert theirs.receive() == message
    sender.join()
    ours.close()
    assert theirs.receive() is None
    theirs.close()


def test_a_frame_in_pieces_arrives_whole(ends: tuple[Wire, socket.socket]) -> None:
    wire, peer = ends
    for byte in encode({"a": 1}):
        peer.send(bytes([byte]))
    assert wire.receive() == {"a": 1}


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<I", 1 << 21),
        struct.pack("<I", 5) + b"\xc1" * 5,
        struct.pack("<I", 1) + b"\x01",
        encode({"a": 1}) + b"more",
        encode({"a": 1})[:-1],
        b"\x01",
    ],
    ids=["too large", "no msgpack", "no map", "unasked", "cut off", "cut off in the length"],
)
def test_what_is_no_single_frame_is_refused(ends: tuple[Wire, socket.socket], data: bytes) -> None:
    wire, peer = ends
    peer.sendall(data)
    peer.shutdown(socket.SHUT_WR)
    with pytest.raises(ProtocolError):
        wire.receive()


def test_a_peer_that_trickles_is_given_up_on(ends: tuple[Wire, socket.socket]) -> None:
    wire, peer = ends
    peer.sendall(struct.pack("<I", 100) + b"x")
    with pytest.raises(BlockingIOError):
        wire.receive(until=time.monotonic())


def test_a_peer_that_takes_nothing_is_given_up_on(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 0, 10_000))
    with pytest.raises(BlockingIOError):
        wire.send({"data": b"x" * (1 << 19)}, until=time.monotonic() + 5)


@pytest.mark.parametrize("asked", [0, 3, 1_000_000])
def test_an_end_that_stays_awake_gets_the_same_frames(ends: tuple[Wire, socket.socket], asked: int) -> None:
    """It polls while it may, then sleeps; nothing is lost on the way."""
    wire, peer = ends
    polls = iter(range(asked))
    sender = threading.Timer(0.02, peer.sendall, [encode({"a": 1})])
    sender.start()
    assert wire.receive(stay_awake_while=lambda: next(polls, None) is not None) == {"a": 1}
    sender.join()
    peer.sendall(encode({"a": 2}))
    assert wire.receive(stay_awake_while=lambda: True) == {"a": 2}
    peer.shutdown(socket.SHUT_WR)
    assert wire.receive(stay_awake_while=lambda: True) is None


def test_a_wire_is_usable_after_a_message_that_is_none(ends: tuple[Wire, socket.socket]) -> None:
    wire, peer = ends
    with pytest.raises(ProtocolError):
        wire.send({"a": [1, object()]})
    with pytest.raises(ProtocolError):
        wire.send({"a": b"x" * (1 << 20)})
    wire.send({"a": 1})
    assert peer.recv(100) == encode({"a": 1})
