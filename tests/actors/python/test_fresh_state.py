"""What a run leaves behind, the next one does not find."""

from __future__ import annotations

from typing import Any, Final

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.zygote import Zygote
from tests.actors.python.driving import Session, run_task

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]

LOOK: Final = """
import asyncio, atexit, builtins, contextlib, decimal, gc, importlib, locale, logging, os, random, resource, signal
import socket, sys, threading, time, warnings
import matplotlib, numpy as np, pandas as pd, sklearn
def files(folder):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)
seen = {
    "scratch": files("/tmp"),
    "cwd": os.getcwd(),
    "environment": dict(os.environ),
    "umask": [os.umask(0o22), os.umask(0o22)],
    "descriptors": len(os.listdir("/proc/self/fd")),
    "threads": [thread.name for thread in threading.enumerate()],
    "limits": [resource.getrlimit(number) for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)],
    "signals": [str(signal.getsignal(number)) for number in (2, 10, 12, 14, 15)],
    "alarm": signal.getitimer(signal.ITIMER_REAL),
    "atexit": atexit._ncallbacks(),
    "builtins": sorted(vars(builtins)),
    "hex": hex(16),
    "small integers": str(100 + int("37")),
    "modules": sorted(sys.modules),
    "path": list(sys.path),
    "finders": len(sys.meta_path) + len(sys.path_hooks),
    "recursion": sys.getrecursionlimit(),
    "switch": sys.getswitchinterval(),
    "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, sys.gettrace() is None],
    "streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
    "main": sorted(name for name in vars(sys.modules["__main__"]) if name.startswith("left")),
    "gc": [gc.isenabled(), *gc.get_threshold()],
    "locale": locale.setlocale(locale.LC_ALL),
    "time zone": [*time.tzname, time.timezone],
    "socket timeout": socket.getdefaulttimeout(),
    "decimal": decimal.getcontext().prec,
    "warnings": len(warnings.filters),
    "logging": [logging.root.level, len(logging.root.handlers), logging.raiseExceptions],
    "event loops": type(asyncio.get_event_loop_policy()).__name__,
    "numpy errors": np.geterr(),
    "numpy print": repr(np.array([1 / 3])),
    "numpy function": int(np.sum([1, 2])),
    "pandas": [pd.get_option("display.max_rows"), hasattr(pd.DataFrame, "left")],
    "matplotlib": [matplotlib.rcParams["figure.dpi"], matplotlib.get_backend()],
    "sklearn": sklearn.get_config()["assume_finite"],
    "bytecode": [sys.dont_write_bytecode, os.path.exists(importlib.util.cache_from_source("/tmp/left.py"))],
}
seen["random"] = [random.random(), float(np.random.random())]
"""

LEAVE: Final = """
def quietly(do):
    with contextlib.suppress(Exception):
        do()
def write(path):
    with open(path, "a") as file:
        file.write("left")
os.makedirs("/tmp/left.d", exist_ok=True)
for path in ("/tmp/left", "/tmp/left.py", "/tmp/left.d/deep", np.__file__, os.__file__, "/dev/shm/left", "/left"):
    quietly(lambda: write(path))
sys.path.insert(0, "/tmp")
sys.dont_write_bytecode = False
quietly(lambda: importlib.import_module("left"))
sys.modules["left_module"] = sys
sys.meta_path.append(None)
os.environ["LEFT"] = "1"
os.putenv("LEFT", "1")
os.chdir("/tmp/left.d")
quietly(lambda: os.open("/tmp/left", os.O_RDONLY))
threading.Thread(target=threading.Event().wait, daemon=True, name="left").start()
quietly(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)))
for number in (2, 10, 12, 14, 15):
    signal.signal(number, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 1000)
atexit.register(print, "left")
builtins.left = 1
builtins.hex = str
sys.setrecursionlimit(5000)
sys.setswitchinterval(0.5)
sys.excepthook = sys.displayhook = print
left = left_too = 1
gc.disable()
gc.set_threshold(1, 1, 1)
quietly(lambda: locale.setlocale(locale.LC_ALL, "C"))
os.environ["TZ"] = "Asia/Tokyo"
time.tzset()
socket.setdefaulttimeout(5)
decimal.getcontext().prec = 5
warnings.simplefilter("error")
logging.basicConfig(level=5)
logging.raiseExceptions = False
class Policy(asyncio.DefaultEventLoopPolicy): pass
asyncio.set_event_loop_policy(Policy())
np.seterr(all="ignore")
np.set_printoptions(precision=2)
np.sum = lambda items: 99
pd.set_option("display.max_rows", 7)
pd.DataFrame.left = 1
matplotlib.rcParams["figure.dpi"] = 7
sklearn.set_config(assume_finite=True)
random.seed(1)
np.random.seed(1)
import ctypes
ctypes.c_uint32.from_address(id(137) + 24).value = 138
sys.stderr = sys.stdout
os.umask(0)
seen
"""
"""Changes everything that `LOOK` sees. The last lines change what the others need."""


def leave_nothing(zygote: Zygote, runs: int) -> None:
    first = run_task(zygote, LOOK + "seen").value
    drawn = [first.pop("random")]
    for number in range(runs):
        seen: dict[str, Any] = run_task(zygote, LOOK + LEAVE).value
        drawn.append(seen.pop("random"))
        changed = {name: (first[name], value) for name, value in seen.items() if value != first[name]}
        assert not changed, f"found by run {number}"
    assert len({one for one, _ in drawn}) == len(drawn)
    assert len({two for _, two in drawn}) == len(drawn)


def test_thirty_runs_leave_nothing_for_the_next(science: Zygote) -> None:
    leave_nothing(science, 30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_runs_leave_nothing_for_the_next(science: Zygote) -> None:
    leave_nothing(science, 1000)


def test_what_is_looked_at_does_change_within_one_process(session: Session) -> None:
    first = session.run(LOOK + LEAVE).value
    second = session.run(LOOK + "seen").value
    same = [name for name in first if second[name] == first[name]]
    assert same == []
