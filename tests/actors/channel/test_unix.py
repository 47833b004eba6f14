"""The unix channel by itself: who may connect, and what a bad peer cannot do."""

from __future__ import annotations

import itertools
import os
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.base import Answers
from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.channel.unix import UnixChannel, UnixServer
from runvisor.policies.errors import ProtocolError


def echo(request: Message, answers: Answers, shared: Sequence[int]) -> None:
    answers.send({"op": "echo", "request": request})


@pytest.fixture
def server() -> Iterator[UnixServer]:
    server = UnixServer(echo, "the-nonce", max_frame_bytes=10_000)
    yield server
    server.close()


def test_only_this_user_can_enter_its_folder(server: UnixServer) -> None:
    assert stat.S_IMODE(Path(server.path).parent.stat().st_mode) == 0o700


def test_another_pool_at_the_same_path_is_not_taken_for_the_expected_one(server: UnixServer) -> None:
    with pytest.raises(ConnectionRefusedError):
        UnixChannel(str(server.path), "another-nonce")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_peer_of_another_user_is_turned_away(server: UnixServer) -> None:
    server.path.parent.chmod(0o755)  # the folder's mode would stop it first
    server.path.chmod(0o777)
    program = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        "s.connect(sys.argv[1]); print(len(s.recv(100)))"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", program, server.path], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "0"


def test_a_frame_over_the_cap_is_refused_unread_and_the_next_client_is_served(server: UnixServer) -> None:
    channel = UnixChannel(str(server.path), "the-nonce")
    assert channel.request({"op": "x", "body": "y" * 20_000})["error"]["type"] == "ProtocolError"
    assert UnixChannel(str(server.path), "the-nonce").request({"op": "x"})["op"] == "echo"


@pytest.mark.parametrize("noise", [b"\x00\x00\x00\x00", b"\x05\x00\x00\x00hello", b"\xff\xff\xff\xff", b"\x04\x00\x00"])
def test_noise_ends_its_own_connection_only(server: UnixServer, noise: bytes) -> None:
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(server.path))
    peer = FrameSocket(raw)
    assert peer.receive() == {"op": "hello", "nonce": "the-nonce"}
    raw.sendall(noise)
    raw.shutdown(socket.SHUT_WR)
    answer = peer.receive()
    assert answer is None or answer["error"]["type"] == "ProtocolError"
    assert UnixChannel(str(server.path), "the-nonce").request({"op": "x"})["op"] == "echo"


def test_a_message_too_large_to_send_is_an_error_before_a_byte_is_sent() -> None:
    left, right = socket.socketpair()
    with FrameSocket(left, max_bytes=100) as sender, pytest.raises(ProtocolError, match="larger than 100"):
        sender.send({"body": "x" * 200})
    assert right.recv(1) == b""
    right.close()


def test_closing_removes_the_folder(server: UnixServer) -> None:
    server.close()
    assert not Path(server.path).parent.exists()
    server.close()


# Output and hang-ups


def connected(server: UnixServer) -> FrameSocket:
    raw = socket.socket(socket.AF_UNIX)
    raw.connect(str(server.path))
    peer = FrameSocket(raw)
    assert peer.receive() == {"op": "hello", "nonce": "the-nonce"}
    return peer


@pytest.mark.parametrize("half", [True, False], ids=["half closed", "closed"])
def test_a_client_that_hangs_up_calls_off_what_runs_for_it(half: bool) -> None:
    called_off = threading.Event()

    def wait(request: Message, answers: Answers, shared: Sequence[int]) -> None:
        with Cancellation() as cancellation, answers.cancel_when_gone(cancellation):
            answers.send({"op": "started"})
            assert select.select([cancellation.fileno()], [], [], 20)[0]
            called_off.set()

    server = UnixServer(wait, "the-nonce")
    peer = connected(server)
    peer.send({"op": "x"})
    assert peer.receive() == {"op": "started"}
    assert not called_off.is_set()
    if half:
        peer._socket.shutdown(socket.SHUT_WR)
    else:
        peer.close()
    assert called_off.wait(20)
    peer.close()
    server.close()


def test_a_client_that_stays_is_not_called_off_by_another_that_goes() -> None:
    release = threading.Event()
    states: list[bool] = []

    def wait(request: Message, answers: Answers, shared: Sequence[int]) -> None:
        with Cancellation() as cancellation, answers.cancel_when_gone(cancellation):
            answers.send({"op": "started"})
            if request["op"] == "stay":
                assert release.wait(20)
                states.append(cancellation.cancelled)
            else:
                assert select.select([cancellation.fileno()], [], [], 20)[0]
                release.set()
        answers.send({"op": "done"})

    server = UnixServer(wait, "the-nonce")
    stays, goes = connected(server), connected(server)
    for peer, op in ((stays, "stay"), (goes, "go")):
        peer.send({"op": op})
        assert peer.receive() == {"op": "started"}
    goes.close()
    assert stays.receive() == {"op": "done"}
    assert states == [False]
    stays.close()
    server.close()


def test_offers_never_wait_for_a_client_that_does_not_read_and_nothing_is_torn() -> None:
    flooded = threading.Event()
    taken: list[int] = []

    def flood(request: Message, answers: Answers, shared: Sequence[int]) -> None:
        numbers = itertools.count()
        while answers.offer(lambda: {"op": "output", "number": next(numbers), "body": "x" * 50_000}):
            pass
        taken.append(next(numbers))
        flooded.set()
        answers.send({"op": "result"})

    server = UnixServer(flood, "the-nonce")
    peer = connected(server)
    peer.send({"op": "x"})
    assert flooded.wait(20), "it waited for the client"
    numbers = []
    while (message := peer.receive()) is not None and message["op"] == "output":
        numbers.append(message["number"])
    assert message == {"op": "result"}
    assert numbers == list(range(taken[0]))
    peer.close()
    server.close()


def test_a_client_that_takes_no_answer_is_given_up() -> None:
    ended = threading.Event()

    def reply(request: Message, answers: Answers, shared: Sequence[int]) -> None:
        try:
            answers.send({"op": "result", "body": "x" * 8_000_000})
        except TimeoutError:
            ended.set()
            raise

    server = UnixServer(reply, "the-nonce", stalled_s=0.1)
    peer = connected(server)
    peer.send({"op": "x"})
    assert ended.wait(20)
    peer.close()
    server.close()


def test_a_listener_that_raises_ends_its_connection_and_not_the_channel() -> None:
    def events(request: Message, answers: Answers, shared: Sequence[int]) -> None:
        answers.send({"op": "started"})
        answers.send({"op": "result"})

    server = UnixServer(events, "the-nonce")
    channel = UnixChannel(str(server.path), "the-nonce")

    def fail(event: Message) -> None:
        raise OSError("the listener's own")

    with pytest.raises(OSError, match="the listener's own"):
        channel.request({"op": "x"}, fail)
    assert channel.request({"op": "x"}) == {"op": "result"}
    channel.close()
    server.close()
