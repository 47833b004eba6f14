"""Every execution starts anew: what many try to leave behind for the next is never there."""

from __future__ import annotations

from typing import Final

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.permissions import Permissions
from tests.escapes.canaries import CHECKOUT_IN_TMP
from tests.escapes.range import Range

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
IN_PYTHON: Final = """
import builtins, gc, os, resource, sys, tempfile, threading

alone = os.getpid() == 1  # without namespaces, where it starts is all that is its own

def marks():
    found = [name for name in os.environ if name.startswith("LEFT")]
    found += [module.__name__ for module in (builtins, sys, os, tempfile) if hasattr(module, "left")]
    found += [name for name in sys.modules if name.startswith("left")]
    for folder in ("/tmp", "/out", "/in", os.getcwd()) if alone else (os.getcwd(),):
        found += [f"{folder}/{name}" for name in os.listdir(folder) if name not in ("port", "CHECKOUT")]
    found += [place for place in sys.path if "left" in place]
    found += [str(hook) for hook in gc.callbacks if "left" in repr(hook)]
    found += ["umask"] * (os.umask(0o77) != 0o22) + ["limit"] * (resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 100)
    found += [number for number in os.listdir("/proc") if number.isdigit() and number != "1"] if alone else []
    return found

found = marks()
os.environ["LEFT"] = "1"
for module in (builtins, sys, os, tempfile):
    module.left = 1
sys.modules["left"] = sys
sys.path.insert(0, "/tmp/left")
def left(*ignored):
    pass
gc.callbacks.append(left)
for folder in ("/tmp", "/out", ".", *sys.path, os.path.dirname(os.__file__)):
    try:
        os.makedirs(folder, exist_ok=True)
        open(f"{folder}/left.py", "w").close()
    except OSError:
        pass
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
threading.Thread(target=threading.Event().wait, daemon=True).start()
found
"""
IN_JAVASCRIPT: Final = """
const found = [];
const places = { globalThis, Object: Object.prototype, Array: Array.prototype, JSON, console };
for (const [name, object] of Object.entries(places)) {
  if (Object.hasOwn(object, "left")) found.push(name);
  Object.defineProperty(object, "left", { value: 1, configurable: false });
}
if (Math.max(1, 2) !== 2) found.push("Math");
Math.max = () => 0;
setTimeout(() => {}, 0);
found
"""


@pytest.mark.parametrize("runs", [30, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_nothing_of_a_run_is_there_in_the_next(python_range: Range, v8_range: Range, language: str, runs: int) -> None:
    shooting, code = (python_range, IN_PYTHON) if language == "python" else (v8_range, IN_JAVASCRIPT)
    code = code.replace("CHECKOUT", CHECKOUT_IN_TMP)
    for _ in range(runs):
        result = shooting.execute(code, language, Permissions(timeout_s=5.0))
        assert result.value == [], result.error
