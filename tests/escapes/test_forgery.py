"""The result channel under attack: the guest writes its own frames, and the host believes none of it.

What a guest says of itself is its own affair; what it must not get is the
host's time beyond the deadline, its memory beyond 64 MiB, a descriptor, an
error that only others may report, or a host that raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.errors import OutputLimitExceeded
from runvisor.policies.permissions import MiB, Permissions
from tests.escapes.attack import Attack
from tests.escapes.marking import known
from tests.escapes.range import Range

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
HOST_MAY_LOSE_BYTES: Final = 64 * MiB

_PRELUDE: Final = """
import array, msgpack, os, socket, struct, time
def frame(body):
    return struct.pack("<I", len(body)) + body
def message(**fields):
    return frame(msgpack.packb(fields))
def send(data):
    view = memoryview(data)
    while view:
        view = view[os.write(3, view):]
def value(data):
    return message(op="value", value=data)
def wide(kind, count):  # an array of so many one-byte things
    return b"\\xdd" + struct.pack(">I", count) + kind * count
def deep(levels):
    return b"\\x91" * levels + b"\\xc0"
def binary(data):
    return b"\\xc6" + struct.pack(">I", len(data)) + data
def extension(code, data):
    return b"\\xc9" + struct.pack(">Ib", len(data), code) + data
"""
_WAIT: Final = "\ntime.sleep(60)"
BROKE_OFF: Final = "killed broke off"
UNREADABLE: Final = "error UnserializableValue"


@dataclass(frozen=True, slots=True)
class Forgery:
    """What is written to the channel, and how that ends."""

    what: str
    code: str
    ends: str
    timeout_s: float = 2.0
    finding: str = ""


FORGERIES: Final = [
    Forgery("its own value", "send(value(b'\\x07'))" + _WAIT, "ok"),
    Forgery("a value, and then the end", "send(value(b'\\x07'))\nos._exit(1)", "ok"),
    Forgery("a value, and then a flood", "send(value(b'\\x07'))\nwhile True: os.write(2, b'x' * 65536)", "ok"),
    Forgery(
        "a value, and then a flood of a pipe made wide",
        "import fcntl\ntry: fcntl.fcntl(2, 1031, 1 << 20)\nexcept PermissionError: pass\n"
        "send(value(b'\\x07'))\nwhile True: os.write(2, b'x' * 65536)",
        "ok",
    ),
    Forgery("two replies", "send(value(b'\\x07') + value(b'\\x08'))", "ok"),
    Forgery(
        "a reply and noise",
        "send(value(b'\\x07') + b'\\xff' * 1000)" + _WAIT,
        "ok",
    ),
    Forgery("that it started, twice", "send(message(op='started'))" + _WAIT, BROKE_OFF),
    Forgery("an unknown message", "send(message(op='grant', permissions={'network': '**'}))" + _WAIT, BROKE_OFF),
    Forgery("an empty map", "send(frame(b'\\x80'))" + _WAIT, BROKE_OFF),
    *(
        Forgery(f"a {name}", f"send(message(op='error', type={name!r}, what='forged'))" + _WAIT, BROKE_OFF)
        for name in ("TrustViolation", "WorkerCrashed", "TimeLimitExceeded", "PoolExhausted", "Cancelled", "KeyError")
    ),
    Forgery("an error without words", "send(message(op='error', type='GuestException', what=''))" + _WAIT, BROKE_OFF),
    Forgery("an error of odd types", "send(message(op='error', type=[1], what={}, where=5.5))" + _WAIT, BROKE_OFF),
    Forgery(
        "an error with a deep text",
        "send(frame(b'\\x83\\xa2op\\xa5error\\xa4type\\xaeGuestException\\xa4what' + deep(1000)))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "no map",
        "send(frame(b'\\xc0'))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "no msgpack",
        "send(frame(b'\\xc1' * 100))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "bad text",
        "send(frame(b'\\x81\\xa2op\\xa2\\xff\\xff'))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "more than one message in a frame",
        "send(frame(b'\\x80\\x80'))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "keys that cannot be keys",
        "send(frame(b'\\x81\\x90\\xc0'))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "nesting beyond a decoder's stack",
        "send(frame(b'\\x81\\xa2op' + deep(100_000)))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "a million empty maps beside the value",
        "send(frame(b'\\x82\\xa2op\\xa5value\\xa1x' + wide(b'\\x80', 4 << 20)))" + _WAIT,
        BROKE_OFF,
    ),
    Forgery(
        "a million empty maps as the value",
        "send(value(wide(b'\\x80', 4 << 20)))" + _WAIT,
        UNREADABLE,
    ),
    Forgery(
        "a million empty lists as the value",
        "send(value(wide(b'\\x90', 4 << 20)))" + _WAIT,
        UNREADABLE,
    ),
    Forgery(
        "20 million nothings as the value",
        "send(value(wide(b'\\xc0', 20_000_000)))" + _WAIT,
        UNREADABLE,
    ),
    Forgery("a deep value", "send(value(deep(900)))" + _WAIT, UNREADABLE),
    Forgery(
        "a value that announces more than it holds", "send(value(b'\\xdd\\xff\\xff\\xff\\xff'))" + _WAIT, UNREADABLE
    ),
    Forgery("a value of an unknown extension", "send(value(extension(77, b'x')))" + _WAIT, UNREADABLE),
    Forgery(
        "an array of objects",
        "send(value(extension(1, msgpack.packb(['|O8', [1], bytes(8)]))))" + _WAIT,
        UNREADABLE,
    ),
    Forgery(
        "an array larger than its bytes",
        "send(value(extension(1, msgpack.packb(['<f8', [1 << 40, 1 << 22], bytes(8)]))))" + _WAIT,
        UNREADABLE,
    ),
    Forgery(
        "an array of a dtype nested without end",
        "kind = '<f8'\nfor _ in range(400): kind = {'base': kind, 'shape': [1]}\n"
        "send(value(extension(1, msgpack.packb([kind, [1], bytes(8)]))))" + _WAIT,
        UNREADABLE,
    ),
    Forgery("a value that is no bytes", "send(message(op='value', value={'a': 1}))" + _WAIT, BROKE_OFF),
    Forgery("a frame of 4 GiB", "send(struct.pack('<I', 0xFFFFFFFF))" + _WAIT, "limit value"),
    Forgery("a frame over the cap", "send(struct.pack('<I', (64 << 20) + 1))" + _WAIT, "limit value"),
    Forgery("part of a frame, and the end", "send(frame(bytes(500))[:100])\nos._exit(0)", "error GuestException"),
    Forgery("part of a frame, and silence", "send(frame(bytes(500))[:100])" + _WAIT, "timeout", 0.5),
    Forgery("part of a length", "send(b'\\x05')" + _WAIT, "timeout", 0.5),
    Forgery(
        "a frame of 20 MiB, byte by byte",
        "send(struct.pack('<I', 20 << 20))\nwrite = os.write\ntime.sleep(0.3)\nwhile True: write(3, b'x')",
        "timeout",
        0.5,
    ),
    Forgery("nothing: it closes the channel", "os.close(3)" + _WAIT, "killed SIGKILL"),
    Forgery(
        "nothing: it shuts the channel down",
        "socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)" + _WAIT,
        "killed SIGKILL",
    ),
]


@pytest.mark.parametrize(
    "forgery",
    [pytest.param(item, id=item.what, marks=known(item.finding)) for item in FORGERIES],
)
def test_a_forged_reply_costs_the_host_nothing(python_range: Range, forgery: Forgery) -> None:
    attack = Attack(forgery.what, "python", _PRELUDE + forgery.code, forgery.ends, {"timeout_s": forgery.timeout_s})
    lost_bytes, aftermath = measured(lambda: python_range.run(attack))
    assert (aftermath.ending, aftermath.harm) == (forgery.ends, []), aftermath.result.error
    assert lost_bytes <= HOST_MAY_LOSE_BYTES


def test_a_flood_after_the_reply_never_changes_the_ending(python_range: Range) -> None:
    code = _PRELUDE + "send(value(b'\\x07'))\nwhile True: os.write(2, b'x' * 4096)"
    for _ in range(20):  # twice what a pipe holds: one reading before the reply was seen, and one after
        result = python_range.execute(code, "python", Permissions(timeout_s=5.0, output_bytes=128 << 10))
        assert (result.value, result.error) == (7, None)


def test_what_was_printed_before_the_reply_counts_however_late_it_is_read(python_range: Range) -> None:
    for _ in range(20):
        result = python_range.execute("print('x' * 2000); 7", "python", Permissions(output_bytes=1000))
        assert isinstance(result.error, OutputLimitExceeded)


def test_an_honest_reply_of_the_largest_size_costs_the_host_no_more_than_that(python_range: Range) -> None:
    permissions = Permissions(timeout_s=5.0)
    lost_bytes, result = measured(lambda: python_range.execute("bytes(22 << 20)", "python", permissions))
    assert len(result.unwrap()) == 22 << 20
    assert lost_bytes <= HOST_MAY_LOSE_BYTES


def test_rich_outputs_are_cut_at_their_caps(python_range: Range) -> None:
    code = (
        _PRELUDE + "many = [['name', 'text/plain', b'x']] * 1000\n"
        "send(message(op='value', value=b'\\xc0', artifacts=many))" + _WAIT
    )
    aftermath = python_range.run(Attack("many", "python", code, "ok", {"timeout_s": 2.0}))
    assert len(aftermath.result.artifacts) <= 32
    odd = "[['a'], 5, [1, 2, 3], ['n', 'm', 'text'], None, [['n'], {}, b'']]"
    code = _PRELUDE + f"send(message(op='value', value=b'\\xc0', artifacts={odd}))" + _WAIT
    aftermath = python_range.run(Attack("odd", "python", code, "ok", {"timeout_s": 2.0}))
    assert aftermath.result.artifacts == ()
    assert aftermath.harm == []


def test_descriptors_sent_to_the_host_do_not_arrive(python_range: Range) -> None:
    code = (
        _PRELUDE + "channel = socket.socket(fileno=os.dup(3))\n"
        "files = [os.open('sent-to-the-host', os.O_CREAT | os.O_RDWR) for _ in range(100)]\n"
        "rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', files))]\n"
        "data = value(bytes([0xC4, 100]) + bytes(100))\n"
        "for at in range(2): channel.sendmsg([data[at:at + 1]], rights)\n"
        "send(data[2:])"
    )
    aftermath = python_range.run(Attack("descriptors", "python", code + _WAIT, "ok", {"timeout_s": 2.0}))
    assert (aftermath.ending, aftermath.harm, aftermath.result.value) == ("ok", [], bytes(100))
    assert [link for link in open_files() if "sent-to-the-host" in link] == []


def test_long_and_strange_texts_of_errors_are_cut(python_range: Range) -> None:
    code = (
        _PRELUDE
        + "send(message(op='error', type='GuestException', what='x' * 1_000_000, where='y' * 1_000_000,"
        + " remedy='z' * 1_000_000, traceback='t' * 1_000_000))"
        + _WAIT
    )
    aftermath = python_range.run(Attack("long", "python", code, "error GuestException", {"timeout_s": 2.0}))
    assert (aftermath.ending, aftermath.harm) == ("error GuestException", [])
    error: Any = aftermath.result.error
    assert max(map(len, (error.what, error.where, error.remedy, error.details["traceback"]))) <= 64 << 10


def open_files() -> list[str]:
    """Say what this process has open."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except OSError:
            continue
    return found


def measured(action: Callable[[], Any]) -> tuple[int, Any]:
    """Return by how much this process's memory rose at most meanwhile (proc(5): clear_refs), and the outcome."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_bytes()
    outcome = action()
    return _peak_bytes() - before, outcome


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) * 1024
