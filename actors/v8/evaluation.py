"""One task or one cell in an isolate, from its frame to its answer."""

from __future__ import annotations

import json
import queue
import re
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.v8 import inputs, outputs, places
from runvisor.actors.v8.bridge import Bridge, Entry, Event, Slot, Step
from runvisor.actors.v8.fetch import Answer
from runvisor.actors.v8.isolate import Buffer, Ending, Failure
from runvisor.actors.v8.shared import SharedBuffer
from runvisor.policies.errors import UnserializableValue
from runvisor.policies.javascript import forms

_FILENAME: Final = "task.js"
_REQUEST_POLL_MS: Final = 5.0
# What a cell may hold that has to be changed before it can run a second time, or be waited for.
_CHANGED_IN_CELLS: Final = re.compile(r"(?<![\w.$])(?:let|const|class|using|import|export|await)\b")


# What V8 throws when the bound on memory refuses it a part outside the heap.
_WANT_OF_MEMORY: Final = re.compile(
    r"RangeError: (?:(?:Shared)?Array ?[Bb]uffer|WebAssembly\.).*"
    r"(?:allocation failed|Out of memory|could not allocate memory|Unable to grow instance memory)"
)
_POSTED: Final = (b"", -1, False)


class _BrokenOff(Exception):
    """The driver itself came to an end, by an exception that it could not report."""


class Evaluation:
    """Runs one piece of code to its end.

    Args:
        bridge: The isolate.
        frame: The task or cell.
        buffers: The large inputs that came with it.
        session: It is a cell: what it declares stays for the next ones.
    """

    def __init__(
        self, bridge: Bridge, frame: dict[str, Any], buffers: Sequence[SharedBuffer] = (), *, session: bool = False
    ) -> None:
        self._bridge = bridge
        self._frame = frame
        self._buffers = buffers
        self._session = session
        self._running: Step | None = None
        self._waiting: deque[Event] = deque()
        self._report: dict[str, Any] | None = None
        self._has_marks = False

    def answer(self) -> dict[str, Any]:
        """Run the code and return the reply frame."""
        code = str(self._frame["code"])
        try:
            kind = self._kind(code)
            report = self._run(code, kind)
            if report and kind != "program" and self._may_be_module(report, code):
                report = self._run(code, "program")
            if report is None:
                self._bridge.fetcher.close_all()
                self._bridge.call(Entry.ABANDON)
                return _error("GuestInterrupted", "the cell was interrupted", "", "")
            return self._reply(report, code)
        except MemoryError:
            return memory_exhausted()
        except UnserializableValue as error:
            return _error("UnserializableValue", error.what, error.where, error.remedy)
        except _BrokenOff as error:
            return _error("GuestException", str(error), "", "")
        except (RecursionError, ValueError) as error:
            return _error("UnserializableValue", f"the value cannot leave the sandbox: {error}", "value", "")

    def _kind(self, code: str) -> str:
        """Say how the code is to be run; a ``program`` is parsed and changed first, which costs some milliseconds."""
        if self._session:
            return "program" if _CHANGED_IN_CELLS.search(code) else "cell"
        if forms.is_surely_module(code):
            return "program"
        return "commonjs" if forms.is_commonjs(code) else "script"

    @staticmethod
    def _may_be_module(report: dict[str, Any], code: str) -> bool:
        return places.is_unparsed(report["outcome"], _FILENAME) and forms.may_be_module(code)

    def rest(self, channel: FrameSocket) -> bool:
        """Let timers and requests of earlier cells go on until a frame comes; False at the end of the session."""
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        while True:
            try:
                while self._running is not None or self._waiting or not self._bridge.events.empty():
                    self._bridge.listens_for_interrupts = True  # a timer's callback may never end
                    event = self._next()
                    if event.kind == "interrupt":
                        self._stop()
                    self._see_to(event)
                self._bridge.listens_for_interrupts = False
                if poll.poll(self._patience_ms()):
                    return True
                if self._bridge.alarm_s is not None and self._bridge.alarm_s <= time.monotonic():
                    self._see_to(Event("alarm"))
            except (MemoryError, _BrokenOff):  # the next cell will meet it
                continue

    def _patience_ms(self) -> float | None:
        if self._bridge.fetcher.busy_count:
            return _REQUEST_POLL_MS
        alarm_s = self._bridge.alarm_s
        return None if alarm_s is None else max(0.0, (alarm_s - time.monotonic()) * 1000 + 0.5)

    def _run(self, code: str, kind: str) -> dict[str, Any] | None:
        """Start the code and wait for its report; None when it was interrupted."""
        self._report = None
        self._bridge.listens_for_interrupts = True
        try:
            return self._wait_for_report(code, kind)
        finally:
            self._bridge.listens_for_interrupts = False

    def _wait_for_report(self, code: str, kind: str) -> dict[str, Any] | None:
        self._start(code, kind)
        while True:
            event = self._next()
            if event.kind == "interrupt":
                self._stop()
                return None
            self._see_to(event)
            report = self._report
            if report is not None and self._running is None and not self._waiting:
                is_busy = self._bridge.held_timers > 0 or self._bridge.fetcher.busy_count > 0
                if self._session or not report["restful"] or not is_busy:
                    return report

    def _stop(self) -> None:
        """End what runs, also when it never would."""
        if self._running is not None:
            self._bridge.cancel(self._running)
            while self._bridge.events.get().kind != "value":
                pass
            self._running = None

    def _start(self, code: str, kind: str) -> None:
        bridge = self._bridge
        decoded = inputs.decode(self._frame["inputs"], self._buffers)
        # An input that is one long text goes as it is: as JSON it would be read twice.
        is_text = isinstance(decoded.value, str) and bridge.post(Slot.INPUTS, decoded.value)
        text, leaves = ("", []) if is_text else inputs.to_text(decoded, bridge.token)
        flags = {
            "isText": is_text,
            "callsMain": forms.calls_main(code),
            "kind": kind,
            "session": self._session,
            "revive": bridge.token in text,
            "name": _FILENAME,
        }
        for leaf in leaves:
            leaf.place(bridge)
        if kind != "program":
            code = forms.visible_main(code) + f"\n//# sourceURL={_FILENAME}"
        flags_text = json.dumps(flags)
        flags_data = flags_text.encode() + b" " * (len(flags_text) % 2)
        code_data, code_units, code_wide = _POSTED if bridge.post(Slot.CODE, code) else _units(code)
        posted = is_text or bridge.post(Slot.INPUTS, text)
        input_data, input_units, input_wide = _POSTED if posted else _units(text)
        bridge.put(flags_data, code_data, input_data)
        code_at = len(flags_data)
        input_at = code_at + len(code_data)
        self._running = bridge.start(
            Entry.RUN, len(flags_text), code_at, code_units, code_wide, input_at, input_units, input_wide
        )

    def _next(self) -> Event:
        """Wait for what can be seen to: one call of the driver at a time. A timer that comes due is an event."""
        events = self._bridge.events
        while self._running is not None:
            event = events.get()
            if event.kind in ("value", "interrupt"):
                return event
            self._waiting.append(event)
        if self._waiting:
            return self._waiting.popleft()
        alarm_s = self._bridge.alarm_s
        try:
            return events.get(timeout=None if alarm_s is None else max(0.0, alarm_s - time.monotonic()))
        except queue.Empty:
            return Event("alarm")

    def _see_to(self, event: Event) -> None:
        bridge = self._bridge
        if event.kind == "value":
            self._running = None
            content = event.content
            if isinstance(content, Failure):
                if content.ending is Ending.MEMORY:
                    raise MemoryError(content.text)
                raise _BrokenOff(content.text.strip().splitlines()[-1][:500] if content.text else content.ending.name)
            if isinstance(content, str) and content:
                self._report = json.loads(content)
                self._has_marks = bridge.token in content
        elif event.kind == "settled":
            self._running = bridge.start(Entry.NOTHING)
        elif event.kind == "alarm":
            self._running = bridge.start(Entry.TICK)
        elif event.kind == "answer":
            answer: Answer = event.content
            text = answer.text.encode("utf-16-le", "surrogatepass")
            bridge.put(text, answer.data)
            self._running = bridge.start(Entry.ANSWER, answer.request, answer.kind, len(text) // 2, len(answer.data))

    def _reply(self, report: dict[str, Any], code: str) -> dict[str, Any]:
        outcome = report["outcome"]
        kind = outcome["kind"]
        if kind == "value":
            buffers = [self._buffer(index) for index in range(outcome["leaves"])]
            packed = outputs.to_packed(outcome["json"], self._bridge.token, buffers, has_marks=self._has_marks)
            return {"op": "value", "value": packed}
        if kind == "unserializable":
            remedy = outcome["remedy"] or "return null, booleans, numbers, text, arrays, plain objects or typed arrays"
            return _error("UnserializableValue", f"{outcome['what']} cannot leave the sandbox", "value", remedy)
        if kind == "syntax":
            return _error("GuestSyntaxError", outcome["what"], outcome["where"], outcome.get("remedy", ""))
        if places.is_unparsed(outcome, _FILENAME):
            where = places.of_unparsed(self._bridge.isolate, code)
            return _error("GuestSyntaxError", outcome["what"], where, "")
        if _WANT_OF_MEMORY.match(outcome["what"]):
            raise MemoryError(outcome["what"])
        where, frames = places.of_stack(outcome["stack"], _FILENAME, report["edits"])
        answer = _error("GuestException", outcome["what"], where, "")
        answer["traceback"] = f"{outcome['what']}\n{frames}".rstrip() + "\n"
        return answer

    def _buffer(self, index: int) -> Callable[[], bytes]:
        def read() -> bytes:
            buffer = self._bridge.call(Entry.LEAF, index)
            assert isinstance(buffer, Buffer)
            return buffer.read()

        return read


def memory_exhausted() -> dict[str, Any]:
    """Return the reply of a task that has no more memory."""
    return _error("MemoryLimitExceeded", "the heap of the isolate is full", "", "")


def _units(text: str) -> tuple[bytes, int, bool]:
    """Return a text as code units, how many, and whether they are two bytes each; at an even size."""
    if text.isascii():
        data = text.encode("ascii")
        return data + b" " * (len(data) % 2), len(text), False
    data = text.encode("utf-16-le", "surrogatepass")
    return data, len(data) // 2, True


def _error(kind: str, what: str, where: str, remedy: str) -> dict[str, Any]:
    return {"op": "error", "type": kind, "what": what, "where": where, "remedy": remedy}
