"""One task or one cell in an isolate, from its frame to its answer."""

from __future__ import annotations

import json
import queue
import re
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.v8 import inputs, outputs, places
from runvisor.actors.v8.bridge import Bridge, Entry, Event, Kind, Step
from runvisor.actors.v8.fetch import Answer
from runvisor.actors.v8.isolate import Buffer, Ending, Failure, JsValue
from runvisor.actors.v8.shared import SharedBuffer
from runvisor.policies.errors import UnserializableValue
from runvisor.policies.javascript import forms
from runvisor.policies.values import pack

_FILENAME: Final = "task.js"
_REQUEST_POLL_MS: Final = 5.0
# What a cell may hold that has to be changed before it can run a second time, or be waited for.
_CHANGED_IN_CELLS: Final = re.compile(r"(?<![\w.$])(?:let|const|class|using|import|export|await)\b")


# What V8 throws when the bound on memory refuses it a part outside the heap.
_WANT_OF_MEMORY: Final = re.compile(
    r"RangeError: (?:(?:Shared)?Array ?[Bb]uffer|WebAssembly\.).*"
    r"(?:allocation failed|Out of memory|could not allocate memory|Unable to grow instance memory)"
)
# What a report begins with that is a value and nothing more: text as it is, JSON, or the JSON of no value.
_TEXT, _JSON, _NO_VALUE = b"T", b"V", b"U"
_OF_STEPS: Final = ("value", "interrupt")


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Code and inputs, ready for the driver."""

    text: str
    numbers: tuple[int, ...]
    leaves: list[inputs.Leaf]


class _BrokenOff(Exception):
    """The driver itself came to an end, by an exception that it could not report."""


class Evaluation:
    """Runs one piece of code to its end.

    Most need nothing but the isolate's own thread: there `begin` starts it and
    `at_once` is given its report. What needs more (timers, requests, buffers,
    errors to be explained) is the main thread's: `answer`.

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
        self._heard: deque[Event] = deque()
        self._waiting: deque[Event] = deque()
        self._report: dict[str, Any] | None = None
        self._has_marks = False
        self._code = str(frame.get("code", ""))
        self._prepared: _Prepared | None = None

    def begin(self, on_report: Callable[[JsValue | bytes], bool]) -> bool:
        """Start the code from the isolate's thread; False if only `answer` can.

        Args:
            on_report: Given the report, on the same thread; see `at_once`.
        """
        try:
            prepared = self._prepare(self._kind(self._code))
        except Exception:  # `answer` meets it again, and says it
            return False
        if prepared.leaves:
            return False
        self._running = self._bridge.start(Entry.RUN, *prepared.numbers, text=prepared.text, on_report=on_report)
        return True

    def at_once(self, content: JsValue | bytes) -> dict[str, Any] | None:
        """Return the reply frame for a report that is a value and nothing more; else None."""
        if not isinstance(content, bytes):
            return None
        bridge = self._bridge
        is_busy = bridge.held_timers > 0 or bridge.fetcher.busy_count > 0
        if content[:1] == _NO_VALUE and is_busy and not self._session:
            return None
        try:
            return self._value(content)
        except Exception:  # `answer` meets it again, and says it
            return None

    def heard(self, event: Event) -> None:
        """Take an event that came before `answer` was called."""
        (self._heard if event.kind in _OF_STEPS else self._waiting).append(event)

    def answer(self) -> dict[str, Any]:
        """Run the code, or go on with what `begin` has started, and return the reply frame."""
        code = self._code
        try:
            kind = self._kind(code)
            report = self._run(kind)
            if report and kind != Kind.PROGRAM and self._may_be_module(report, code):
                report = self._run(Kind.PROGRAM)
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

    def _kind(self, code: str) -> Kind:
        """Say how the code is to be run; a program is parsed and changed first, which costs some milliseconds."""
        if self._session:
            return Kind.PROGRAM if _CHANGED_IN_CELLS.search(code) else Kind.CELL
        if forms.is_surely_module(code):
            return Kind.PROGRAM
        return Kind.COMMONJS if forms.is_commonjs(code) else Kind.SCRIPT

    @staticmethod
    def _may_be_module(report: dict[str, Any], code: str) -> bool:
        return "outcome" in report and places.is_unparsed(report["outcome"], _FILENAME) and forms.may_be_module(code)

    def rest(self, channel: FrameSocket, missed: Sequence[Event] = ()) -> None:
        """Let timers and requests of earlier cells go on until a frame comes, or the stream ends."""
        self._waiting.extend(missed)
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        while True:
            try:
                while self._running is not None or self._waiting or not self._bridge.events.empty():
                    self._bridge.interruptible = self  # a timer's callback may never end
                    event = self._next()
                    if event.kind == "interrupt":
                        self._stop()
                    self._see_to(event)
                self._bridge.interruptible = None
                if poll.poll(self._patience_ms()):
                    return
                if self._bridge.alarm_s is not None and self._bridge.alarm_s <= time.monotonic():
                    self._see_to(Event("alarm"))
            except (MemoryError, _BrokenOff):  # the next cell will meet it
                continue

    def _patience_ms(self) -> float | None:
        if self._bridge.fetcher.busy_count:
            return _REQUEST_POLL_MS
        alarm_s = self._bridge.alarm_s
        return None if alarm_s is None else max(0.0, (alarm_s - time.monotonic()) * 1000 + 0.5)

    def _run(self, kind: Kind) -> dict[str, Any] | None:
        """Start the code, unless it was begun, and wait for its report; None when it was interrupted."""
        self._report = None
        self._bridge.interruptible = self
        try:
            return self._wait_for_report(kind)
        finally:
            self._bridge.interruptible = None

    def _wait_for_report(self, kind: Kind) -> dict[str, Any] | None:
        if self._running is None:
            prepared = self._prepare(kind)
            for leaf in prepared.leaves:
                leaf.place(self._bridge)
            self._running = self._bridge.start(Entry.RUN, *prepared.numbers, text=prepared.text)
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

    def _prepare(self, kind: Kind) -> _Prepared:
        bridge, code = self._bridge, self._code
        decoded = inputs.decode(self._frame["inputs"], self._buffers)
        # An input that is one text goes as it is: as JSON it would be read twice.
        is_text = isinstance(decoded.value, str)
        text, leaves = (decoded.value, []) if is_text else inputs.to_text(decoded, bridge.token)
        calls_main = forms.calls_main(code)
        if kind != Kind.PROGRAM:
            code = forms.visible_main(code) + f"\n//# sourceURL={_FILENAME}"
        revive = not is_text and bridge.token in text
        return _Prepared(code + text, (kind, _units(code), is_text, calls_main, self._session, revive), leaves)

    def _next(self) -> Event:
        """Wait for what can be seen to: one call of the driver at a time. A timer that comes due is an event."""
        events = self._bridge.events
        if self._heard:
            return self._heard.popleft()
        while self._running is not None:
            event = events.get()
            if event.kind in _OF_STEPS:
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
            if isinstance(content, bytes) and content:
                self._report = self._read(content)
        elif event.kind == "settled":
            self._running = bridge.start(Entry.NOTHING)
        elif event.kind == "alarm":
            self._running = bridge.start(Entry.TICK)
        elif event.kind == "answer":
            answer: Answer = event.content
            text = answer.text.encode("utf-16-le", "surrogatepass")
            bridge.put(text, answer.data)
            self._running = bridge.start(Entry.ANSWER, answer.request, answer.kind, len(text) // 2, len(answer.data))

    def _read(self, content: bytes) -> dict[str, Any]:
        if content[:1] != b"{":
            return {"restful": content[:1] == _NO_VALUE, "plain": content}
        self._has_marks = self._bridge.token.encode() in content
        report: dict[str, Any] = json.loads(content)
        return report

    def _value(self, content: bytes) -> dict[str, Any] | None:
        """Return the reply frame for a report that is a value and nothing more; None for any other."""
        if content[:1] == _TEXT:
            return {"op": "value", "value": pack(content[1:].decode(errors="surrogatepass"))}
        if content[:1] in (_JSON, _NO_VALUE):
            value = json.loads(content[1:])
            return {"op": "value", "value": outputs.to_packed(value, self._bridge.token, [], has_marks=False)}
        return None

    def _reply(self, report: dict[str, Any], code: str) -> dict[str, Any]:
        if "plain" in report and (reply := self._value(report["plain"])) is not None:
            return reply
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


def _units(text: str) -> int:
    """Return the length of a text in UTF-16."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _error(kind: str, what: str, where: str, remedy: str) -> dict[str, Any]:
    return {"op": "error", "type": kind, "what": what, "where": where, "remedy": remedy}
