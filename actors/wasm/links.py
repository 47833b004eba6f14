"""The host's end of an engine process: lanes to lend, what is loaded in it, and how it ends."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import socket
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.jail.child import Child, ChildExit
from runvisor.actors.wasm.agreement import CALM_S, WINDOW_BYTES
from runvisor.actors.wasm.lanes import EngineGone, Lane
from runvisor.actors.wasm.replies import ModuleInfo
from runvisor.policies.errors import GuestError, LimitExceeded, ProtocolError, SpawnFailed, WorkerCrashed
from runvisor.policies.permissions import MiB

if TYPE_CHECKING:
    from runvisor.actors.wasm.image import Image
    from runvisor.actors.wasm.native_code import NativeCode

_MAX_KNOWN: Final = 256
_ENGINE_BYTES: Final = 512 * MiB
"""For the engine itself: compiling, compiled code, frames."""
LOAD_TIMEOUT_S: Final = 10.0
"""How long an engine may take to map and link native code."""

Key = tuple[bytes, str]
"""A module's digest, and the profile of the engine that compiled it."""


class EngineLink:
    """One engine process, as the runtime sees it.

    Attributes:
        modules: What it is known to have compiled; it may have forgotten since.
        condemned: The host ended it because of one of its runs.
        dead: It has ended, or is ending; nothing new is to be sent.

    Args:
        child: A sealed engine process that nothing has run in.
        natives: Where native code comes from.
    """

    def __init__(self, child: Child, natives: NativeCode) -> None:
        self.child = child
        self._natives = natives
        self._images: set[str] = set()
        self._loading = threading.Lock()
        self.modules: OrderedDict[Key, ModuleInfo] = OrderedDict()
        self.condemned = False
        self.dead = False
        self._in_flight = 0
        self._calm_at = 0.0
        self._suspects: int | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._idle: list[Lane] = []
        self._reserved_bytes = 0
        self._limit_bytes = 0

    def lane(self, memory_bytes: int) -> Lane:
        """Lend a lane for one execution, with room for its memory.

        Args:
            memory_bytes: What the execution may take at most.

        Raises:
            EngineGone: The engine has ended.
        """
        with self._lock:
            self._in_flight += 1
            if self._in_flight > 1:
                self._calm_at = time.monotonic() + CALM_S
            self._reserved_bytes += memory_bytes
            has_room = self._reserved_bytes <= self._limit_bytes or self._raise_limit()
            lane = self._idle.pop() if has_room and self._idle else None
        if lane is None:
            try:
                if not has_room:
                    raise EngineGone("its memory limit cannot be raised", was_asked=False)
                lane = self._open()
            except EngineGone:
                self.note_end()
                with self._lock:
                    self._in_flight -= 1
                raise
        lane.memory_bytes = memory_bytes
        return lane

    def take_back(self, lane: Lane, *, is_usable: bool) -> None:
        """End what `lane` began; called by the lane."""
        with self._lock:
            self._in_flight -= 1
            self._reserved_bytes -= lane.memory_bytes
            if is_usable:
                self._idle.append(lane)
        if not is_usable:
            lane.close()  # whatever was asked may still be answered there

    def is_calm(self) -> bool:
        """Whether executions come one at a time, and have for a while: only then may one poll for its reply."""
        return self._in_flight <= 1 and time.monotonic() >= self._calm_at

    def note(self, key: Key, module: ModuleInfo) -> None:
        """Remember that the engine has a module."""
        with self._lock:
            self.modules[key] = module
            while len(self.modules) > _MAX_KNOWN:
                self.modules.popitem(last=False)

    def load(
        self, lane: Lane, key: bytes, code: bytes, profile: str, *, is_text: bool, request: str = "load"
    ) -> Message:
        """Have a module compiled elsewhere, and the engine load it; return the engine's reply.

        Args:
            lane: One of this engine, lent to the caller.
            key: The module's digest.
            code: The module.
            profile: Name of the profile to compile for.
            is_text: Whether it is WAT.
            request: What the engine loads it by; other than modules, it is a component.

        Raises:
            GuestError: It is no module that can run here.
            LimitExceeded: It took too much to compile.
            CapacityError: No compiler came free.
            WorkerError: No compiler process can be made.
            EngineGone: The engine ended.
            Unanswered: It did not load it in time.
        """
        is_component = request != "load"
        with self._natives.of(key, code, profile, is_text=is_text, is_component=is_component) as fd:
            self._send({"op": "native", "key": key, "profile": profile}, [fd])
        return lane.ask({"op": request, "key": key, "profile": profile}, LOAD_TIMEOUT_S)

    def load_image(self, lane: Lane, image: Image) -> None:
        """Have the engine load an image, unless it has; see `runvisor.actors.wasm.image`.

        Args:
            lane: One of this engine, lent to the caller.
            image: What to load.

        Raises:
            ConfigError: The image cannot be read.
            WorkerError: It cannot be compiled or loaded.
            EngineGone: The engine ended.
            ProtocolError: The engine answered nonsense.
            Unanswered: It did not load it in time.
        """
        if image.name in self._images:
            return
        with self._loading:
            if image.name in self._images:
                return
            try:
                with self._natives.of_image(image) as fd:
                    self._send({"op": "native", "key": image.digest, "profile": image.profile}, [fd])
            except (GuestError, LimitExceeded) as error:
                raise SpawnFailed(f"the image {image.name} does not compile: {error}", "wasm") from None
            request: Message = {
                "op": "image",
                "key": image.digest,
                "name": image.name,
                "profile": image.profile,
                "is_component": image.is_component,
            }
            reply = lane.ask(request, LOAD_TIMEOUT_S)
            if "error" in reply:
                raise ProtocolError(f"the engine cannot load the image {image.name}")
            self._images.add(image.name)

    @property
    def suspects(self) -> int:
        """How many executions were under way when the end was first noticed."""
        return self._suspects or 0

    def connect(self, stream: int) -> None:
        """Hand a stream to the engine, for the HTTP requests of its one run; before it has a lane.

        Raises:
            EngineGone: The engine has ended.
        """
        self._send({"op": "web"}, [stream])

    def call_off(self, lane: int, request: int) -> None:
        """Have a request that was sent over a lane end as soon as its guest can be stopped."""
        with contextlib.suppress(OSError), self._lock:
            self.child.channel.send({"op": "cancel", "lane": lane, "id": request})

    def note_end(self) -> None:
        """Note, in an execution that it touches, that the engine has ended or must."""
        with self._lock:
            self.dead = True
            if self._suspects is None:
                self._suspects = self._in_flight

    def condemn(self) -> None:
        """End the process because a run got out of hand; its other runs are not to blame."""
        self.condemned = True
        self.note_end()
        self.child.kill()

    def death(self) -> ChildExit | None:
        """Kill the process if it lives, wait for its end and say how it came."""
        self.child.kill()
        return self.child.exit()

    def close(self) -> None:
        """Close the lanes; the owner of the child ends it."""
        with self._lock:
            lanes, self._idle = self._idle, []
        for lane in lanes:
            lane.close()

    def _open(self) -> Lane:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        window = _make_window()
        try:
            number = next(self._numbers)
            self._send({"op": "lane", "lane": number}, [theirs.fileno(), window])
        except EngineGone:
            ours.close()
            os.close(window)
            raise
        finally:
            theirs.close()
        return Lane(self, ours, window, number)

    def _send(self, message: Message, fds: list[int]) -> None:
        try:
            with self._lock:
                self.child.channel.send(message, fds)
        except OSError as error:
            raise EngineGone(str(error), was_asked=False) from None

    def _raise_limit(self) -> bool:
        """Give the process's cgroup room for all that its executions may take; it never shrinks again.

        Returns:
            Whether that could be done: a dead child has no cgroup any more.
        """
        try:
            self.child.limit_memory(_ENGINE_BYTES + self._reserved_bytes, final=False)
        except WorkerCrashed:
            return False
        self._limit_bytes = self._reserved_bytes
        return True


def _make_window() -> int:
    """Make shared memory of a size that the engine cannot change: a shrunk file would kill who writes to it."""
    fd = os.memfd_create("records", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, WINDOW_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd
