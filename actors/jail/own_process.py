"""A program of ours in a process of its own: the zygotes, and the broker of the network."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.policies.errors import ProtocolError, SpawnFailed

_EXIT_TIMEOUT_S: Final = 5.0
_MAX_LAST_WORDS: Final = 500


class OwnProcess:
    """Runs a module of ours with a clean environment and no descriptor but those it is given.

    It is to end when its control socket does, so that it cannot outlive this
    process; started by subprocess, never forked, so that none of our memory is in it.

    Args:
        module: Its dotted name.
        arguments: Its command line.
        fds: Descriptors that it keeps; they stay the caller's as well.
        environment: All that it sees of one.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], *, fds: Sequence[int], environment: Mapping[str, str]
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed in end()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", module, *arguments],
            pass_fds=tuple(fds),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_ready(self, frames: FrameSocket, name: str, where: str, timeout_s: float) -> None:
        """Wait until it says that it is ready.

        Args:
            frames: Where it says so.
            name: What it is, for the message.
            where: The part of the project, for the message.
            timeout_s: How long to wait.

        Raises:
            SpawnFailed: It ended, failed or stayed silent; the message holds its last words. It is
                still to be ended.
        """
        frames.settimeout(timeout_s)
        try:
            message = frames.receive()
        except (OSError, ProtocolError):
            message = None
        frames.settimeout(None)
        if message is None or message.get("op") != "ready":
            reason = (message or {}).get("what") or self.last_words() or f"no answer in {timeout_s:g} s"
            raise SpawnFailed(f"the {name} did not start: {reason}", where)

    def last_words(self) -> str:
        """Return the last line that it wrote on stderr."""
        try:
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
        except ValueError:  # it has been ended
            return ""
        return lines[-1][:_MAX_LAST_WORDS] if lines else ""

    def kill(self) -> None:
        """Kill it; harmless when it is dead."""
        self._process.kill()

    def end(self, control: FrameSocket) -> None:
        """Shut its control socket, and wait for its end; one that does not end is killed.

        Args:
            control: The socket whose end is its end; closing it stays the caller's.
        """
        with contextlib.suppress(OSError):
            control.shutdown()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
