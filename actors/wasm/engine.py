"""The engine process: compiles and runs the modules of one principal, inside a jail.

The host hands it lanes: a socket, and a window of shared memory for records. A
lane is served by one thread that reads a request, works and answers, so that a
run needs no hand-over between threads and several lanes run in parallel (guest
code holds no GIL). Requests and replies are maps; a reply carries its request's
``id``:

- ``compile`` (key, profile, code, is_text) -> ``module``
- ``load`` (key, profile) -> ``module``; its native code came ahead, as ``native`` over the control channel
- ``image`` (key, name, profile, is_component) -> nothing; likewise
- ``run`` (key, entry, arguments, timeout_s, memory_bytes; output_bytes, stdin, environment, is_command for
  modules that use WASI; fuel where instructions are counted) -> ``results``, ``value`` of a command, or
  ``has_left``; ``cpu_s``, and ``stdout``, ``stderr``, ``memory_bytes``, ``instructions`` where they apply
- ``records`` (key, count, is_last; on the first of a run also record_bytes, state, collects, output_bytes,
  timeout_s, memory_bytes) -> ``selected``, and on the last ``state`` and ``cpu_s``
- ``forget`` (key, profile)
- whatever `runvisor.actors.wasm.operations` adds

Any of them may answer ``error`` instead; ``run`` and ``records`` answer
``unknown`` when the module has been forgotten.

Instead of lanes it may be given one module to compile for others
(`runvisor.actors.wasm.precompile`): then it does only that.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import wasmtime
import wasmtime.component

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.wasm import fastpath
from runvisor.actors.wasm.agreement import CALM_S
from runvisor.actors.wasm.deadlines import Deadlines
from runvisor.actors.wasm.engines import AnyStore, Engine
from runvisor.actors.wasm.fastpath import Frame, Store
from runvisor.actors.wasm.library import Api
from runvisor.actors.wasm.live_output import Flusher
from runvisor.actors.wasm.modules import CompiledModule, ModuleCache, link_module, map_component, map_native
from runvisor.actors.wasm.operations import arms, define_imports, operations_on
from runvisor.actors.wasm.precompile import precompile
from runvisor.actors.wasm.profiles import MAX_STACK_BYTES
from runvisor.actors.wasm.publicpath import TICK_S
from runvisor.actors.wasm.run import Run
from runvisor.actors.wasm.sessions import RecordSession, Window
from runvisor.actors.wasm.standby import Standby
from runvisor.actors.wasm.wasi import Wasi
from runvisor.actors.wasm.wire import Wire
from runvisor.policies.errors import ProtocolError, RunvisorError
from runvisor.policies.permissions import MiB

_THREAD_STACK_BYTES: Final = MAX_STACK_BYTES + 1 * MiB
"""Of each lane: what guest code may use, and room for the engine around it."""
_MODULES: Final = {"plain": 96}
_FEW_MODULES: Final = 24
"""Modules that are kept of each other profile; more are loaded again from what the host keeps."""
_SWITCH_S: Final = 0.0005
"""How long a thread waits for one that holds the GIL: a deadline must not wait behind guests' host calls."""
_NATIVE_WAIT_S: Final = 5.0
"""How long a lane waits for native code that is on its way; it was sent before the request."""


def preload(options: dict[str, Any]) -> None:
    """Import what arms add. Engines map memory, so each child makes its own."""
    del options
    arms()


def prepare(options: dict[str, Any]) -> tuple[int, Api]:
    """Return how many runs there may be at once, and how wasmtime is used."""
    return int(options.get("lanes", 16)), options.get("api", "c")


def serve(channel: FrameSocket, prepared: tuple[int, Api]) -> None:
    """Make the engine, then serve lanes until the host closes the channel; or compile one module."""
    message, fds = channel.receive_with_fds()
    if message is not None and message["op"] == "precompile":
        channel.send({"op": "started"})
        channel.send(precompile(message, prepared[1]))
        return
    process = EngineProcess(*prepared)
    process.start()
    while message is not None:
        if message["op"] == "native":
            process.take_native(message["key"], message["profile"], *fds)
        elif message["op"] == "web":
            process.web = socket.socket(fileno=fds[0])
        elif message["op"] == "cancel":
            process.call_off(message["lane"], message["id"])
        else:
            lane, window = fds
            process.serve_lane(socket.socket(fileno=lane), window, message["lane"])
        message, fds = channel.receive_with_fds()


class EngineProcess:
    """All that the lanes of one process share.

    Args:
        lanes: Most runs at once.
        api: How wasmtime is used.
    """

    def __init__(self, lanes: int, api: Api = "c") -> None:
        self._lanes = lanes
        self._api: Api = api
        self._engines: list[Engine] = []
        self._caches: dict[str, ModuleCache] = {}
        self._lock = threading.Lock()
        self._natives: dict[tuple[bytes, str], int] = {}
        self._has_native = threading.Condition()
        self.images: dict[str, CompiledModule | wasmtime.component.Component] = {}
        """What is loaded for arms, by name; it stays."""
        self.web: socket.socket | None = None
        """The stream to what makes HTTP requests, in an engine that one run has to itself."""
        self._lanes_by_number: dict[int, EngineLane] = {}
        self.deadlines = Deadlines(self._move_epochs, tick_s=TICK_S if api == "public" else None)
        self.flusher = Flusher()
        self.wasi = Wasi(self.deadlines)
        fastpath.decide_epochs_by(self.deadlines.may_go_on)
        self.plain = self.cache("plain")

    def start(self) -> None:
        """Start the thread that keeps deadlines."""
        threading.stack_size(_THREAD_STACK_BYTES)
        sys.setswitchinterval(_SWITCH_S)
        self.deadlines.start()

    def serve_lane(self, lane: socket.socket, window_fd: int, number: int = 0) -> None:
        """Serve a lane in a thread of its own until the host closes it."""
        served = self._lanes_by_number[number] = EngineLane(self, lane, window_fd)

        def serve() -> None:
            try:
                served.serve()
            finally:
                del self._lanes_by_number[number]

        threading.Thread(target=serve, name="lane", daemon=True).start()

    def call_off(self, number: int, request: int) -> None:
        """Let a request of a lane end as if its deadline had passed; one that is over is left alone."""
        if (lane := self._lanes_by_number.get(number)) is not None:
            lane.call_off(request)

    def take_native(self, key: bytes, profile: str, fd: int) -> None:
        """Take the native code that a lane's next request is about."""
        with self._has_native:
            old = self._natives.pop((key, profile), None)
            self._natives[key, profile] = fd
            self._has_native.notify_all()
        if old is not None:
            os.close(old)

    @contextmanager
    def native(self, key: bytes, profile: str) -> Iterator[int]:
        """Give the descriptor of native code that the host has sent; valid in the block."""
        with self._has_native:
            if not self._has_native.wait_for(lambda: (key, profile) in self._natives, _NATIVE_WAIT_S):
                raise ProtocolError("no native code came")
            fd = self._natives.pop((key, profile))
        try:
            yield fd
        finally:
            os.close(fd)

    def cache(self, profile: str) -> ModuleCache:
        """Return the modules of one engine; it is made when first asked for."""
        cache = self._caches.get(profile)
        if cache is None:
            with self._lock:
                cache = self._caches.get(profile)
                if cache is None:
                    engine = Engine(self._lanes, self.wasi, profile, self._api)
                    define_imports(engine)
                    self._engines.append(engine)
                    cache = self._caches[profile] = ModuleCache(engine, _MODULES.get(profile, _FEW_MODULES))
        return cache

    def _move_epochs(self) -> None:
        for engine in list(self._engines):
            engine.move_epoch()


class EngineLane:
    """One lane: requests come one after the other and are answered in order.

    Attributes:
        process: What all lanes share.
        standby: An instance that is ready for the next request.
    """

    def __init__(self, process: EngineProcess, lane: socket.socket, window_fd: int) -> None:
        self.process = process
        self._wire = Wire(lane)
        self._window = Window(window_fd)
        self._frame = Frame()
        self.standby = Standby()
        self._ready: AnyStore | None = None
        self._spent: AnyStore | None = None
        self._session: RecordSession | None = None
        self._began_at = 0.0
        self._session_cpu_s = 0.0
        self._cancelled = -1
        self._running = (-1, 0)
        self._emitting = threading.Lock()
        self._operations: Mapping[str, Callable[[Message], Message]] = {
            "run": self._run,
            "records": self._records,
            "compile": self._compile,
            "load": self._load,
            "image": self._image,
            "forget": self._forget,
            **operations_on(self),
        }

    def serve(self) -> None:
        """Answer requests until the host closes the lane."""
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
            for ending in (self._session, self._spent, self._ready, self.standby, self._window, self._wire):
                if ending is not None:
                    ending.close()

    def call_off(self, request: int) -> None:
        """Let a request end as if its deadline had passed; called from another thread."""
        self._cancelled = request  # first: `begin` looks for it after it has said what runs
        number, token = self._running
        if number == request:
            self.process.deadlines.call_off(token)

    def begin(self, message: Message, token: int) -> None:
        """Say what the present request runs, so that it can be called off."""
        self._running = (message["id"], token)
        if self._cancelled == message["id"]:
            self.process.deadlines.call_off(token)

    def emit(self, event: Message) -> None:
        """Tell the host something before the answer; from any thread, while a request is under way."""
        with self._emitting:
            self._wire.send(event)

    def image(self, name: str) -> CompiledModule | wasmtime.component.Component:
        """Return an image that the host has had loaded."""
        return self.process.images[name]

    def store(self, profile: str) -> Store:
        """Return a fresh store, without limits yet, in the engine of a profile; it ends with the present request.

        Raises:
            ProtocolError: Wasmtime is used through its public API, where arms are not offered.
        """
        store = self.new_store(profile, self._frame)
        self.spend(store)
        return store

    def new_store(self, profile: str, frame: Frame) -> Store:
        """Return a fresh store as `store` does, the caller's to close.

        Args:
            profile: Of which engine.
            frame: As long as the store has one of its own, several may be kept.

        Raises:
            ProtocolError: See `store`.
        """
        cache = self.process.cache(profile)
        store = cache.engine.store(frame, self.process.deadlines.token())
        if not isinstance(store, Store):
            store.close()
            raise ProtocolError("arms run on the C functions only")
        return store

    def spend(self, store: Store) -> None:
        """Have a store end with the present request."""
        if self._spent is not None:
            self._spent.close()
        self._spent = store

    def _answer(self, message: Message) -> Message:
        try:
            return self._operations[message["op"]](message)
        except RunvisorError as error:
            return {"error": error.to_wire()}

    def _tidy(self) -> None:
        """Delete the store of the run just answered and make ready for the next, while nobody waits."""
        if self._spent is not None:
            self._spent.close()
            self._spent = None
        if self._ready is None:
            self._ready = self._make_store(self.process.plain)
        self.standby.fill()

    def _make_store(self, cache: ModuleCache) -> AnyStore:
        return cache.engine.store(self._frame, self.process.deadlines.token())

    def _compile(self, message: Message) -> Message:
        cache = self.process.cache(message["profile"])
        module = cache.compile(message["key"], message["code"], is_text=message["is_text"])
        return {"module": module.to_wire()}

    def _load(self, message: Message) -> Message:
        key, profile = message["key"], message["profile"]
        with self.process.native(key, profile) as fd:
            return {"module": self.process.cache(profile).load(key, fd).to_wire()}

    def _image(self, message: Message) -> Message:
        profile = message["profile"]
        engine = self.process.cache(profile).engine
        with self.process.native(message["key"], profile) as fd:
            if message["is_component"]:
                image: CompiledModule | wasmtime.component.Component = map_component(engine, fd)
            else:
                image = link_module(engine, map_native(engine, fd), os.fstat(fd).st_size, is_ours=True)
            self.process.images[message["name"]] = image
        return {}

    def _forget(self, message: Message) -> Message:
        self.process.cache(message["profile"]).forget(message["key"])
        return {}

    def _run(self, message: Message) -> Message:
        if "fuel" in message:
            cache = self.process.cache("metered")
            store = self._make_store(cache)
        else:
            cache = self.process.plain
            store, self._ready = self._ready or self._make_store(cache), None
        self._spent = store
        module = cache.get(message["key"])
        if module is None:
            return {"unknown": True}
        self.begin(message, store.token)
        reply = Run(self.process.deadlines, self.process.wasi, store, module, message, self).reply()
        reply["cpu_s"] = time.thread_time() - self._began_at
        return reply

    def _records(self, message: Message) -> Message:
        session = self._session
        if session is None:
            cache = self.process.cache("record")
            module = cache.get(message["key"])
            if module is None:
                return {"unknown": True}
            store = cache.engine.store(Frame(), self.process.deadlines.token())  # it outlives this request
            session = self._session = RecordSession(self.process.deadlines, store, module, self._window, message)
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
        return self.process.deadlines.is_calm(int(self._session is not None), CALM_S)
