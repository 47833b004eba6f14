"""Takes a task on the isolate's own thread, and answers there what needs no other.

A task that computes a value wakes one thread of its process, and none waits
for another. Whatever takes more than the isolate (a timer, a request, a
buffer, an interrupt, an error to be explained) goes to the main thread, which
sleeps until then.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import limits
from runvisor.actors.v8.bridge import Bridge, Event
from runvisor.actors.v8.evaluation import Evaluation, memory_exhausted
from runvisor.actors.v8.isolate import JsValue
from runvisor.actors.v8.shared import SharedBuffer, received

Watcher = Callable[[Callable[[], None]], None]


class Attendant:
    """Serves one task, or the cells of one session.

    Args:
        channel: Where frames come from and answers go.
        bridge: The isolate.
        leave: Called when a task has been answered, or no answer can follow.
        watch_memory: Given what to call when memory has run out; see `watch_private_memory`.
    """

    def __init__(self, channel: FrameSocket, bridge: Bridge, leave: Callable[[], None], watch_memory: Watcher) -> None:
        self._channel = channel
        self._bridge = bridge
        self._leave = leave
        self._watch_memory = watch_memory
        self._answering = threading.Lock()
        self._is_session = False
        self._evaluation: Evaluation | None = None
        self._buffers: list[SharedBuffer] = []
        self._lock = threading.Lock()
        self._is_taken = True
        """The answer to what runs is somebody's already; guarded by the lock."""

    def serve(self) -> None:
        """Serve until the stream ends, on the main thread."""
        self._bridge.hand_over(self._attend)
        event = self._bridge.events.get()
        if event.kind == "broken":
            raise event.content
        if event.kind == "session":
            self._serve_cells()
        elif event.kind != "end" and self._take():
            self._answer(event)

    def _serve_cells(self) -> None:
        """Serve a session; its frames come to this thread, because interrupts do too and none may hit a later cell."""
        missed: list[Event] = []
        while True:
            if missed or not self._bridge.is_quiet:
                Evaluation(self._bridge, {}, session=True).rest(self._channel, missed)
                missed = []
            frame, fds = self._channel.receive_with_fds()
            if frame is None:
                return
            evaluation = self._next(frame, fds)
            if not self._begin(evaluation):
                self._answer(None)
                continue
            while (event := self._bridge.events.get()).kind != "answered":
                if event.kind == "broken":
                    raise event.content
                if event.kind == "interrupt" and event.content is not evaluation:
                    continue
                if self._take():
                    self._answer(event)
                    break
                if event.kind != "interrupt":  # it has been answered, but may have begun a request
                    missed.append(event)

    def _answer(self, event: Event | None) -> None:
        evaluation = self._evaluation
        assert evaluation is not None
        if event is not None and event.kind != "frame":
            evaluation.heard(event)
        self._send(evaluation.answer())

    def _next(self, frame: dict[str, Any], fds: list[int]) -> Evaluation:
        self._buffers = received(frame.get("shared"), fds)
        self._evaluation = Evaluation(self._bridge, frame, self._buffers, session=self._is_session)
        self._bridge.interruptible = self._evaluation if self._is_session else None
        return self._evaluation

    def _begin(self, evaluation: Evaluation) -> bool:
        self._is_taken = False
        begun = evaluation.begin(self._on_report)
        self._is_taken = self._is_taken or not begun
        return begun

    # On the isolate's thread.

    def _attend(self) -> None:
        """Wait for the first frame, and begin with it if it is a task."""
        try:
            first, fds = self._channel.receive_with_fds()
            if first is None:
                self._bridge.events.put(Event("end"))
                return
            self._is_session = first.get("mode") == "session"
            self._channel.send({"op": "started"})
            limits.apply_cpu_limit(first["cpu_s"])
            os.environ.update(first.get("env", {}))
            self._watch_memory(self._answer_exhausted)
            self._bridge.isolate.limit_heap(first["memory_bytes"])
            self._bridge.begin()
            if self._is_session:
                self._bridge.events.put(Event("session"))
            elif not self._begin(self._next(first, fds)):
                self._is_taken = False
                self._bridge.events.put(Event("frame"))
        except BaseException as error:  # nothing may rise into the engine
            self._bridge.events.put(Event("broken", error))

    def _on_report(self, content: JsValue | bytes) -> bool:
        """Answer at once if that is possible."""
        evaluation = self._evaluation
        assert evaluation is not None
        reply = evaluation.at_once(content)
        if reply is None or not self._take():
            return False
        self._bridge.interruptible = None
        try:
            self._send(reply)
            self._bridge.events.put(Event("answered" if self._is_session else "end"))
        except BaseException as error:
            self._bridge.events.put(Event("broken", error))
        return True

    def _take(self) -> bool:
        """Make the answer to what runs the caller's to give; False if it is another's."""
        with self._lock:
            was_taken, self._is_taken = self._is_taken, True
        return not was_taken

    def _send(self, reply: dict[str, Any]) -> None:
        with self._answering:
            self._channel.send(reply)
            if not self._is_session:
                self._leave()
        for buffer in self._buffers:
            os.close(buffer.fd)
        self._buffers = []

    def _answer_exhausted(self) -> None:
        with self._answering:
            self._channel.send(memory_exhausted())
            self._leave()
