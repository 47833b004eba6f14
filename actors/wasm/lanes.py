"""The host's end of an engine process: lanes, what its modules are, and how it ends.

A lane serves one caller at a time, so that a request costs one send and one
receive in the caller's own thread. Every byte that comes back is hostile.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import mmap
import os
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from runvisor.actors.cancellation import Cancellation
from runvisor.actors.channel.frames import Message
from runvisor.actors.jail.child import Child, ChildExit
from runvisor.actors.wasm.agreement import CALM_S, WINDOW_BYTES
from runvisor.actors.wasm.backtraces import frames_of
from runvisor.actors.wasm.conventions import Entry, choose_entry
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.errors import GuestError, InvalidTask, LimitExceeded, ProtocolError, RunvisorError, SpawnFailed
from runvisor.policies.permissions import KiB, MiB

if TYPE_CHECKING:
    from runvisor.actors.wasm.image import Image
    from runvisor.actors.wasm.native_code import NativeCode

_MAX_KNOWN: Final = 256
_REPLY_BYTES: Final = 4 * MiB
_MAX_TEXT: Final = 64 * KiB
_ENGINE_BYTES: Final = 512 * MiB
"""For the engine itself: compiling, compiled code, frames."""
LOAD_TIMEOUT_S: Final = 10.0
"""How long an engine may take to map and link native code."""
_LEAST_WAIT_S: Final = 0.001
_TIMEVAL: Final = struct.Struct("@ll")

Key = tuple[bytes, str]
"""A module's digest, and the profile of the engine that compiled it."""


class EngineGone(Exception):
    """The engine process has ended.

    Args:
        message: What was seen of it.
        was_asked: Whether it may have begun on the request before.
    """

    def __init__(self, message: str, *, was_asked: bool) -> None:
        super().__init__(message)
        self.was_asked = was_asked


class Unanswered(Exception):
    """A request took longer than it may; the engine no longer keeps its own deadlines."""


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What an engine says of a module that it has compiled."""

    entry: Entry | InvalidTask
    """What to call, or why nothing can be called."""
    functions: Mapping[str, tuple[list[str], list[str]]]

    @classmethod
    def from_wire(cls, data: Any) -> ModuleInfo:
        """Check and read a ``compile`` reply's ``module``.

        Raises:
            ProtocolError: It is not one.
        """
        try:
            functions: dict[str, tuple[list[str], list[str]]] = {}
            for name, (parameters, results) in data["functions"].items():
                if not isinstance(name, str) or not {*parameters, *results} <= {"i32", "i64", "f32", "f64"}:
                    raise TypeError(name)
                functions[name] = (list(parameters), list(results))
            others = [str(name) for name in data["other_functions"]]
            uses_wasi = bool(data["uses_wasi"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"not a module description: {error}") from None
        entry: Entry | InvalidTask
        try:
            entry = choose_entry(functions, others, uses_wasi=uses_wasi)
        except InvalidTask as error:
            entry = error
        return cls(entry, functions)


class Lane:
    """One socket to the engine, lent to one execution at a time: a context manager that gives itself back."""

    def __init__(self, link: EngineLink, ours: socket.socket, window_fd: int, number: int = 0) -> None:
        self._link = link
        self._number = number
        self._window_fd = window_fd
        self._window: mmap.mmap | None = None
        self._wire = Wire(ours)
        self._ids = itertools.count()
        self._wait_s = 0.0
        self._is_asking = False
        self.memory_bytes = 0

    def __enter__(self) -> Lane:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, EngineGone | ProtocolError):
            self._link.note_end()
        self._link.take_back(self, is_usable=not self._is_asking)

    def ask(
        self,
        request: Message,
        timeout_s: float,
        reply_bytes: int = _REPLY_BYTES,
        *,
        hear: Callable[[Message], None] | None = None,
        cancellation: Cancellation | None = None,
    ) -> Message:
        """Send a request and return its reply.

        Args:
            request: Gets its ``id`` here.
            timeout_s: How long the engine may take.
            reply_bytes: The largest reply that makes sense.
            hear: Takes what the engine says before it answers; None is nothing. What it raises ends the asking.
            cancellation: Has the engine call the request off.

        Raises:
            EngineGone: The engine has ended.
            ProtocolError: It answered what is no reply; it is not to be asked again.
            Unanswered: It took too long.
        """
        number = request["id"] = next(self._ids)
        until = time.monotonic() + timeout_s
        if cancellation is not None:
            cancellation.act(partial(self._link.call_off, self._number, number))
        try:
            reply = self._exchange(request, timeout_s, until, reply_bytes, hear)
        finally:
            if cancellation is not None:
                cancellation.act(None)
        if reply.get("id") != number or not self._wire.is_empty:
            raise ProtocolError("the engine answered what was not asked")
        self._is_asking = False
        return reply

    def _exchange(
        self,
        request: Message,
        timeout_s: float,
        until: float,
        reply_bytes: int,
        hear: Callable[[Message], None] | None,
    ) -> Message:
        if timeout_s != self._wait_s:
            self._wait_at_most(timeout_s)
        self._is_asking = True
        was_asked = False
        try:
            self._wire.send(request, until)
            was_asked = True
            reply = self._wire.receive(until, reply_bytes, self._link.is_calm, may_go_on=hear is not None)
        except BlockingIOError:
            raise Unanswered from None
        except OSError as error:
            raise EngineGone(str(error), was_asked=was_asked) from None
        while hear is not None and reply is not None and "event" in reply:
            hear(reply)
            self._wait_at_most(max(_LEAST_WAIT_S, until - time.monotonic()))
            try:
                reply = self._wire.receive(until, reply_bytes, may_go_on=True)
            except BlockingIOError:
                raise Unanswered from None
            except OSError as error:
                raise EngineGone(str(error), was_asked=True) from None
        if reply is None:
            raise EngineGone("the engine closed the lane", was_asked=True)
        return reply

    def window(self) -> mmap.mmap:
        """Return the memory that the engine reads records from; only ever written to here."""
        if self._window is None:
            self._window = mmap.mmap(self._window_fd, WINDOW_BYTES)
        return self._window

    def close(self) -> None:
        """Close it; the engine's thread behind it ends with its present run."""
        self._wire.close()
        os.close(self._window_fd)
        if self._window is not None:
            self._window.close()
            self._window = None

    def _wait_at_most(self, seconds: float) -> None:
        """Bound later waits by the kernel (SO_RCVTIMEO), one system call only when the bound changes."""
        if seconds != self._wait_s:
            whole = int(seconds)
            bound = _TIMEVAL.pack(whole, int((seconds - whole) * 1e6) + 1)
            self._wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
            self._wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
            self._wait_s = seconds


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
            if self._reserved_bytes > self._limit_bytes:
                self._raise_limit()
            lane = self._idle.pop() if self._idle else None
        if lane is None:
            try:
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

    def _raise_limit(self) -> None:
        """Give the process's cgroup room for all that its executions may take; it never shrinks again."""
        self._limit_bytes = self._reserved_bytes
        with contextlib.suppress(OSError):  # a dead child has no cgroup; the lane will tell
            self.child.limit_memory(_ENGINE_BYTES + self._limit_bytes, final=False)


def _make_window() -> int:
    """Make shared memory of a size that the engine cannot change: a shrunk file would kill who writes to it."""
    fd = os.memfd_create("records", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, WINDOW_BYTES)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def guest_error(data: Any) -> GuestError | LimitExceeded:
    """Read an ``error`` that an engine reports of its guest.

    Raises:
        ProtocolError: It is none that a guest can end with.
    """
    error = RunvisorError.from_wire(data)
    if not isinstance(error, GuestError | LimitExceeded):
        raise ProtocolError("the engine reports an error that is not its guest's")
    details: dict[str, Any] = {str(key)[:100]: _plain(item) for key, item in list(error.details.items())[:10]}
    where = error.where[:_MAX_TEXT]
    if frames := frames_of(str(details.get("traceback", ""))):
        details["frames"] = frames
        where = where or str(frames[0]["function"])
    return type(error)(error.what[:_MAX_TEXT], where, error.remedy[:_MAX_TEXT], details)


def _plain(item: object) -> str | int:
    return item if isinstance(item, int) else str(item)[:_MAX_TEXT]
