"""The unix channel by itself: who may connect, and what a bad peer cannot do."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.channel.unix import UnixChannel, UnixServer
from runvisor.policies.errors import ProtocolError


def echo(request: Message, emit: object) -> None:
    assert callable(emit)
    emit({"op": "echo", "request": request})


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
