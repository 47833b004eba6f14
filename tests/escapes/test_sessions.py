"""Sessions under attack: what one cell leaves behind answers no other, and no session hears another."""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from runvisor.actors.channel.sealed import SealedInputs, SealedMemory, seal
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.session import JailedSession
from runvisor.actors.runtime import Cell, Watch
from runvisor.policies.errors import GuestCrashed, TimeLimitExceeded
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack
from tests.escapes.canaries import CHECKOUT_IN_TMP
from tests.escapes.range import GRACE_S, Range

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
_FORGE: Final = """
import msgpack, os, struct
def forged(value):
    body = msgpack.packb({"op": "value", "value": msgpack.packb(value)})
    return struct.pack("<I", len(body)) + body
"""


@contextmanager
def opened(shooting: Range, language: str, principal: str = "tester", **limits: Any) -> Iterator[JailedSession]:
    grant = Grant(principal, Trust.UNTRUSTED, Permissions(**limits))
    variant = {"python": "native", "javascript": "isolate"}[language]
    session = shooting.runtime.open_session(Task("-", language, label="book"), variant, grant)
    try:
        yield session
    finally:
        session.close()


def cell(session: JailedSession, code: str, inputs: Any = None, timeout_s: float | None = 5.0) -> Result:
    began = time.monotonic()
    result = session.run(Cell(code, Packed(pack(inputs)), "", timeout_s), Watch())
    assert timeout_s is None or time.monotonic() - began < timeout_s + GRACE_S
    return result


def test_a_python_session_leaves_nothing_that_another_can_find(python_range: Range) -> None:
    leave = """
import os, sys, builtins, socket, signal, threading, time
os.environ["LEFT"] = "SECRET"
builtins.left = sys.left = "SECRET"
sys.modules["left"] = sys
os.__dict__["left"] = "SECRET"
for folder in ("/tmp", "/out") if os.getpid() == 1 else (".",):
    open(f"{folder}/left", "w").write("SECRET")
threading.Thread(target=lambda: time.sleep(60), daemon=True, name="SECRET").start()
os.umask(0)
sys.setrecursionlimit(5000)
1
"""
    look = """
import builtins, gc, os, sys, threading
found = [name for name in ("LEFT",) if name in os.environ]
found += [str(thing) for thing in (builtins, sys, os) if hasattr(thing, "left")]
found += [name for name in ("left",) if name in sys.modules]
alone = os.getpid() == 1
folders = ("/tmp", "/out") if alone else (".",)
found += [name for folder in folders for name in os.listdir(folder) if name != "CHECKOUT"]
found += [thread.name for thread in threading.enumerate() if "SECRET" in thread.name]
found += [number for number in os.listdir("/proc") if number.isdigit() and number != "1"] if alone else []
found + [sys.getrecursionlimit() == 5000] * (sys.getrecursionlimit() == 5000)
"""
    with opened(python_range, "python", "one") as one, opened(python_range, "python", "two") as two:
        assert cell(one, leave).value == 1
        look = look.replace("CHECKOUT", CHECKOUT_IN_TMP)
        assert cell(two, look).value == []
    with opened(python_range, "python", "three") as three:
        assert cell(three, look).value == []


def test_a_javascript_session_leaves_nothing_that_another_can_find(v8_range: Range) -> None:
    leave = """
globalThis.left = "SECRET"; Object.prototype.left = "SECRET"; Array.prototype.left = "SECRET";
setInterval(() => { globalThis.left += "x"; }, 1); 1
"""
    with opened(v8_range, "javascript", "one") as one, opened(v8_range, "javascript", "two") as two:
        assert cell(one, leave).value == 1
        look = "[typeof globalThis.left, typeof ({}).left, typeof [].left].join()"
        assert cell(two, look).value == "undefined,undefined,undefined"


def test_a_thread_of_an_earlier_cell_cannot_answer_a_later_one_twice(python_range: Range) -> None:
    with opened(python_range, "python") as session:
        assert cell(session, "import time\n" + _FORGE + "1").value == 1
        late = """
import threading
def answer():
    time.sleep(0.1)
    os.write(3, forged("late"))
threading.Thread(target=answer, daemon=True).start()
"""
        assert cell(session, late).ok
        said, _, _ = select.select([session._child.channel], [], [], 5)
        assert said  # the forged answer lies there when the next cell is sent
        result = cell(session, "'honest'")
        assert result.value is None
        assert isinstance(result.error, GuestCrashed)
        assert session.ended


@pytest.mark.parametrize(
    "is_shared",
    [
        pytest.param(False, id="plain"),
        pytest.param(True, id="shared memory"),
    ],
)
def test_a_cell_that_answers_before_it_has_read_does_not_hold_up_the_next(python_range: Range, is_shared: bool) -> None:
    deaf = f"""
import os, select, threading, time
from runvisor.actors.channel.frames import FrameSocket
{_FORGE}
def answer():
    select.select([3], [], [])
    time.sleep(0.2)
    os.write(3, forged("unread"))
FrameSocket.receive = FrameSocket.receive_with_fds = FrameSocket._exactly = lambda *ignored: time.sleep(60)
threading.Thread(target=answer, daemon=True).start()
1
"""
    with opened(python_range, "python", memory_bytes=512 * MiB) as session:
        assert cell(session, deaf).value == 1
        cell(session, "1", inputs=bytes(20 << 20))
        with SealedInputs(*packed_apart(bytes(1 << 20))) if is_shared else nothing() as inputs:
            began = time.monotonic()
            rescue = threading.Timer(5, session.kill)  # so that a host that hangs fails here, and not for ever
            rescue.start()
            result = session.run(Cell("1", inputs, "", 0.5), Watch())
            rescue.cancel()
        assert time.monotonic() - began < 0.5 + GRACE_S
        assert result.error is not None
        assert session.ended


def packed_apart(value: bytes) -> tuple[bytes, list[SealedMemory]]:
    buffers: list[Any] = []
    data = pack(value, buffers)
    return data, seal(buffers)


@contextmanager
def nothing() -> Iterator[Packed]:
    yield Packed(pack(None))


def test_output_between_cells_is_bounded_by_the_pipe_and_harms_nobody(python_range: Range) -> None:
    flood = """
import os, threading
def shout():
    while True:
        os.write(1, b"x" * 4096)
threading.Thread(target=shout, daemon=True).start()
1
"""
    with opened(python_range, "python", output_bytes=1 << 20) as session:
        cell(session, flood)
        assert select.select([session._child.stdout_fd], [], [], 5)[0]
        result = cell(session, "while True: pass", timeout_s=1.0)
        assert result.error is not None
        assert len(result.stdout) <= 1 << 20
        assert session.ended


def test_a_session_that_hangs_in_native_code_ends_at_its_deadline(python_range: Range) -> None:
    with opened(python_range, "python") as session:
        result = cell(session, "import re\nre.match(r'(a+)+$', 'a' * 60 + 'b')", timeout_s=0.5)
        assert isinstance(result.error, TimeLimitExceeded)
        assert session.ended
