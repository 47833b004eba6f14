"""What a task may ask of its own process: print, know the time, draw random bytes, wait, fetch.

The task's side is driver/bridge.js. A call is numbers and bytes in the
scratch, a buffer that both sides see; no object of the task is touched.
Everything here runs on the isolate's thread, while the task waits. The
process is as jailed as the task: nothing here decides what the task may do.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from runvisor.actors.v8.fetch import Fetcher
from runvisor.actors.v8.isolate import Buffer, Failure, Handle, Isolate, JsValue

SCRATCH_BYTES: Final = 1 << 18
_HEADER_BYTES: Final = 64
_ROOM: Final = SCRATCH_BYTES - _HEADER_BYTES
_HASHES: Final = ("sha1", "sha256", "sha384", "sha512")


class Call(IntEnum):
    """What the task asks for: the first number of the header. See driver/bridge.js."""

    WRITE = 1
    PART = 2
    SETTLED = 3
    ALARM = 4
    RANDOM = 5
    CLOCK = 6
    DIGEST = 7
    OPEN = 8
    SEND = 9
    PULL = 10
    CLOSE = 11


class Entry(IntEnum):
    """What the driver is called for: the first number of the header. See driver/entry.js."""

    RUN = 1
    TICK = 2
    NOTHING = 3
    RESERVE = 4
    LEAF = 5
    INBOX = 6
    ABANDON = 7
    ANSWER = 8


class Kind(IntEnum):
    """How the driver is to run a piece of code. See driver/tasks.js."""

    SCRIPT = 0
    COMMONJS = 1
    PROGRAM = 2
    CELL = 3


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the main thread has to see to."""

    kind: str
    """``value``, ``settled``, ``answer`` or ``interrupt``; from an `Attendant` also ``frame``, ``session``,
    ``answered``, ``end`` and ``broken``."""
    content: Any = None


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the driver that may run code of the task."""

    tasks: tuple[int, int]


class Bridge:
    """An isolate with its driver, and the calls that the driver makes.

    Args:
        driver: The driver's source: a function of (host, token, scratch size).
        parts: Source by name, for what the driver loads at first use.

    Attributes:
        events: What the main thread has to see to, in order.
        alarm_s: When the next timer is due, on the monotonic clock; None without one.
        held_timers: How many timers a task without a value waits for.
        interruptible: What runs that an interrupt would end, if anything does.
        token: The key that stands in JSON for what JSON cannot say.
    """

    def __init__(self, driver: str, parts: Mapping[str, str]) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.alarm_s: float | None = None
        self.held_timers = 0
        self.interruptible: object = None
        self.token = os.urandom(16).hex()
        self.fetcher = Fetcher(lambda answer: self.events.put(Event("answer", answer)))
        self._parts = {name: source.encode("ascii") for name, source in parts.items()}
        self._digests: dict[int, Any] = {}
        self._origin_s = time.monotonic()
        self.isolate = Isolate(self._on_call)
        self._entry, self._report, self._idle = self._install(driver)

    def _install(self, driver: str) -> tuple[Handle, Handle, Handle]:
        box = self.isolate.evaluate("globalThis.box = []")
        assert isinstance(box, Handle)
        self.isolate.set(box, 0, self.isolate.host_function())
        scratch = self.isolate.evaluate(f"box[1] = new ArrayBuffer({SCRATCH_BYTES})")
        assert isinstance(scratch, Buffer)
        self._header = (ctypes.c_double * 8).from_address(scratch.address)
        self._scratch = Buffer(scratch.address + _HEADER_BYTES, scratch.nbytes - _HEADER_BYTES)
        made = self.isolate.evaluate(f"box = ({driver})(box[0], box[1], '{self.token}')")
        entry, report, idle = (self.isolate.evaluate(f"box[{index}]") for index in range(3))
        self.isolate.evaluate("delete globalThis.box")
        if not (isinstance(entry, Handle) and isinstance(report, Handle) and isinstance(idle, Handle)):
            raise RuntimeError(f"the driver did not load: {made}")
        return entry, report, idle

    # Towards the task.

    def begin(self) -> None:
        """Let the task's clock begin; it tells nothing of how long the instance waited."""
        self._origin_s = time.monotonic()

    @property
    def is_quiet(self) -> bool:
        """Nothing is due or under way: no timer, no request, no event."""
        return self.alarm_s is None and not self.fetcher.busy_count and self.events.empty()

    def hand_over(self, wait: Callable[[], None]) -> None:
        """Let a function wait on the isolate's own thread, where nothing else runs meanwhile.

        What it starts there begins without waking another thread.
        """
        self.isolate.start(self._idle, lambda _: wait())

    def start(
        self, entry: Entry, *numbers: float, text: str = "", on_report: Callable[[JsValue | bytes], bool] | None = None
    ) -> Step:
        """Call the driver, then ask for its report, which arrives as the event ``value``.

        The second call begins when the microtasks of the first have run out.

        Args:
            entry: What for.
            numbers: The header's other numbers.
            text: What the driver finds as its ``this``.
            on_report: Given the report on the isolate's thread; no event comes if it deals with it.
        """
        self._header[: 1 + len(numbers)] = [entry, *numbers]
        failures: list[Failure] = []

        def entered(value: JsValue | bytes) -> None:
            if isinstance(value, Failure):
                failures.append(value)

        def reported(value: JsValue | bytes) -> None:
            content = failures[0] if failures else value
            if on_report is None or not on_report(content):
                self.events.put(Event("value", content))

        return Step((self.isolate.start(self._entry, entered, text), self.isolate.start(self._report, reported)))

    def interrupt(self) -> None:
        """Ask for an end of what runs; without effect when nothing does. Called by a signal handler."""
        if self.interruptible is not None:
            self.events.put(Event("interrupt", self.interruptible))

    def cancel(self, step: Step) -> None:
        """End a step, wherever it is; its event comes all the same."""
        for task in step.tasks:
            self.isolate.cancel(task)

    def call(self, entry: Entry, *numbers: float) -> Any:
        """Call a function of the driver that runs no code of the task, and return its value."""
        self._header[: 1 + len(numbers)] = [entry, *numbers]
        value = self.isolate.call(self._entry)
        if isinstance(value, Failure):
            raise MemoryError(value.text)
        return value

    def put(self, *texts: bytes) -> None:
        """Lay bytes where the next call of the driver reads them, one after the other."""
        size = sum(map(len, texts))
        target = self._scratch
        if size > _ROOM:
            target = self.call(Entry.INBOX, size)
        offset = 0
        for text in texts:
            target.write(text, offset)
            offset += len(text)

    # From the task, on the isolate's thread.

    def _on_call(self) -> None:
        header = self._header
        try:
            header[0] = self._answer(int(header[0]), header[1], header[2])
        except Exception:  # nothing may rise into the isolate
            header[0] = -1

    def _answer(self, call: int, a: float, b: float) -> float:
        if call == Call.WRITE:
            self._write(2 if a == 2 else 1, self._text(b))
        elif call == Call.CLOCK:
            return (time.monotonic() - self._origin_s) * 1000
        elif call == Call.ALARM:
            self.alarm_s = self._origin_s + a / 1000 if a else None
            self.held_timers = int(b)
        elif call == Call.SETTLED:
            self.events.put(Event("settled"))
        elif call == Call.PART:
            source = self._parts[self._text(a)]
            self._scratch.write(source)
            return len(source)
        elif call == Call.RANDOM:
            self._scratch.write(os.urandom(min(int(a), _ROOM)))
        elif call == Call.DIGEST:
            return self._digest(int(a), int(b))
        elif call == Call.OPEN:
            return self.fetcher.open(self._text(a))
        elif call == Call.SEND:
            return self.fetcher.send(int(a), self._scratch.read(min(int(b), _ROOM)) if b >= 0 else None)
        elif call == Call.PULL:
            self.fetcher.pull(int(a))
        elif call == Call.CLOSE:
            self.fetcher.close(int(a))
        else:
            return -1
        return 0

    def _text(self, length: float) -> str:
        return self._scratch.read(min(int(length) * 2, _ROOM)).decode("utf-16-le", "replace")

    def _digest(self, algorithm: int, size: int) -> int:
        """Hash in pieces: a size of -1 ends with the digest in the scratch. One at a time suffices."""
        if size < 0:
            digest = self._digests.pop(algorithm, None) or hashlib.new(_HASHES[algorithm])
            self._scratch.write(digest.digest())
            return int(digest.digest_size)
        if algorithm not in self._digests:
            self._digests[algorithm] = hashlib.new(_HASHES[algorithm])
        self._digests[algorithm].update(self._scratch.read(min(size, _ROOM)))
        return 0

    @staticmethod
    def _write(fd: int, text: str) -> None:
        data = memoryview(text.encode(errors="replace"))
        while data:
            data = data[os.write(fd, data) :]
