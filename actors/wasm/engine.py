"""The engine process: compiles and runs the modules of one principal, inside a jail.

The host hands it lanes: a socket, and a window of shared memory for records. A
lane is served by one thread that reads a request, works and answers, so that a
run needs no hand-over between threads and several lanes run in parallel (guest
code holds no GIL). Requests and replies are maps; a reply carries its request's
``id``:

- ``compile`` (key, profile, code, is_text) -> ``module``
- ``run`` (key, entry, arguments, timeout_s, memory_bytes; output_bytes, stdin, environment, is_command for
  modules that use WASI; fuel where instructions are counted) -> ``results``, ``value`` of a command, or
  ``has_left``; ``cpu_s``, and ``stdout``, ``stderr``, ``memory_bytes``, ``instructions`` where they apply
- ``records`` (key, count, is_last; on the first of a run also record_bytes, state, timeout_s, memory_bytes)
  -> ``selected``, and on the last ``state`` and ``cpu_s``
- ``forget`` (key, profile)

Any of them may answer ``error`` instead; ``run`` and ``records`` answer
``unknown`` when the module has been forgotten.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.wasm import fastpath
from runvisor.actors.wasm.agreement import CALM_S
from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.engines import STACK_BYTES, Engine, Profile
from runvisor.actors.wasm.fastpath import Frame, Store
from runvisor.actors.wasm.modules import ModuleCache
from runvisor.actors.wasm.run import Run
from runvisor.actors.wasm.sessions import RecordSession, Window
from runvisor.actors.wasm.wasi import Wasi
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.errors import RunvisorError
from runvisor.policies.permissions import MiB

_THREAD_STACK_BYTES: Final = STACK_BYTES + 1 * MiB
"""Of each lane: what guest code may use, and room for the engine around it."""


def preload(options: dict[str, Any]) -> None:
    """Nothing more: the imports above are what is heavy. Engines map memory, so each child makes its own."""
    del options


def prepare(options: dict[str, Any]) -> int:
    """Return how many runs there may be at once."""
    return int(options.get("lanes", 16))


def serve(channel: FrameSocket, prepared: int) -> None:
    """Make the engine, then serve lanes until the host closes the channel."""
    process = EngineProcess(prepared)
    process.start()
    while True:
        message, fds = channel.receive_with_fds()
        if message is None:
            return
        lane, window = fds
        process.serve_lane(socket.socket(fileno=lane), window)


class EngineProcess:
    """All that the lanes of one process share.

    Args:
        lanes: Most runs at once.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._engines: list[Engine] = []
        self._caches: dict[Profile, ModuleCache] = {}
        self._lock = threading.Lock()
        self.deadlines = Deadlines(self._move_epochs)
        self.wasi = Wasi(self.deadlines)
        fastpath.decide_epochs_by(self.deadlines.may_go_on)
        self.plain = self.cache("plain")

    def start(self) -> None:
        """Start the thread that keeps deadlines."""
        threading.stack_size(_THREAD_STACK_BYTES)
        self.deadlines.start()

    def serve_lane(self, lane: socket.socket, window_fd: int) -> None:
        """Serve a lane in a thread of its own until the host closes it."""
        threading.Thread(target=_Lane(self, lane, window_fd).serve, name="lane", daemon=True).start()

    def cache(self, profile: Profile) -> ModuleCache:
        """Return the modules of one engine; it is made when first asked for."""
        cache = self._caches.get(profile)
        if cache is None:
            with self._lock:
                cache = self._caches.get(profile)
                if cache is None:
                    engine = Engine(self._lanes, self.wasi, profile)
                    self._engines.append(engine)
                    cache = self._caches[profile] = ModuleCache(engine)
        return cache

    def _move_epochs(self) -> None:
        for engine in list(self._engines):
            engine.move_epoch()


class _Lane:
    """One lane: requests come one after the other and are answered in order."""

    def __init__(self, process: EngineProcess, lane: socket.socket, window_fd: int) -> None:
        self._process = process
        self._wire = Wire(lane)
        self._window = Window(window_fd)
        self._frame = Frame()
        self._ready: Store | None = None
        self._spent: Store | None = None
        self._session: RecordSession | None = None
        self._began_at = 0.0
        self._session_cpu_s = 0.0
        self._operations: Mapping[str, Callable[[Message], Message]] = {
            "run": self._run,
            "records": self._records,
            "compile": self._compile,
            "forget": self._forget,
        }

    def serve(self) -> None:
        try:
            while (message := self._wire.receive(stay_awake_while=self._is_calm)) is not None:
                self._began_at = time.thread_time()
                reply = self._answer(message)
                reply["id"] = message["id"]
                self._wire.send(reply)
                self._tidy()
        except BaseException as error:  # the host sees the lane close, and replaces the process
            os.write(2, f"lane: {type(error).__name__}: {error}\n".encode(errors="replace")[:500])
        finally:
            for ending in (self._session, self._spent, self._ready, self._window, self._wire):
                if ending is not None:
                    ending.close()

    def _answer(self, message: Message) -> Message:
        try:
            return self._operations[message["op"]](message)
        except RunvisorError as error:
            return {"error": error.to_wire()}

    def _tidy(self) -> None:
        """Delete the store of the run just answered and make the next one, while nobody waits."""
        if self._spent is not None:
            self._spent.close()
            self._spent = None
        if self._ready is None:
            self._ready = self._make_store(self._process.plain)

    def _make_store(self, cache: ModuleCache) -> Store:
        return Store(cache.engine_address, self._frame, self._process.deadlines.token())

    def _compile(self, message: Message) -> Message:
        cache = self._process.cache(message["profile"])
        module = cache.compile(message["key"], message["code"], is_text=message["is_text"])
        return {"module": module.to_wire()}

    def _forget(self, message: Message) -> Message:
        self._process.cache(message["profile"]).forget(message["key"])
        return {}

    def _run(self, message: Message) -> Message:
        if "fuel" in message:
            cache = self._process.cache("metered")
            store = self._make_store(cache)
        else:
            cache = self._process.plain
            store, self._ready = self._ready or self._make_store(cache), None
        self._spent = store
        module = cache.get(message["key"])
        if module is None:
            return {"unknown": True}
        reply = Run(self._process.deadlines, self._process.wasi, store, module, message).reply()
        reply["cpu_s"] = time.thread_time() - self._began_at
        return reply

    def _records(self, message: Message) -> Message:
        session = self._session
        if session is None:
            cache = self._process.cache("record")
            module = cache.get(message["key"])
            if module is None:
                return {"unknown": True}
            store = Store(cache.engine_address, Frame(), self._process.deadlines.token())  # it outlives this request
            session = self._session = RecordSession(self._process.deadlines, store, module, self._window, message)
            self._session_cpu_s = 0.0
        reply = session.reply(message)
        self._session_cpu_s += time.thread_time() - self._began_at
        if "error" in reply or message["is_last"]:
            session.close()
            self._session = None
            reply["cpu_s"] = self._session_cpu_s
        return reply

    def _is_calm(self) -> bool:
        """Whether the next request is worth polling for: nothing runs beside what this lane is in the middle of."""
        return self._process.deadlines.is_calm(int(self._session is not None), CALM_S)
