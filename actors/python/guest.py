"""Inside the jail: run one piece of Python and send its value home.

Everything here shares a process with hostile code and is trusted by nobody.
"""

from __future__ import annotations

import contextlib
import importlib
import linecache
import random
import sys
import types
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import limits
from runvisor.actors.python import source
from runvisor.policies.errors import GuestSyntaxError, RunvisorError, UnserializableValue
from runvisor.policies.values import pack, unpack

_WARM_TEXT: Final = "import math\ndef double(x):\n    return x * 2\ntotal = [double(i) for i in range(3)]\ntotal"


def preload(options: dict[str, Any]) -> None:
    """Import the profile's packages and what they load lazily, in the zygote."""
    for name in options.get("modules", ()):
        with contextlib.suppress(ImportError):  # an optional package; the guest sees its ordinary ImportError
            importlib.import_module(name)
    if "matplotlib.pyplot" in sys.modules:
        _warm_matplotlib()
    importlib.import_module("encodings.idna")
    _rehearse()


def _warm_matplotlib() -> None:
    """Find the fonts once; a child would pay 0.5 s for it."""
    import io

    pyplot = sys.modules["matplotlib.pyplot"]
    figure = pyplot.figure(figsize=(1, 1))
    figure.add_subplot().set_title("warm")
    figure.savefig(io.BytesIO(), format="png")
    pyplot.close("all")


def prepare(options: dict[str, Any]) -> int:
    """Make a child ready: randomness of its own, and its share of copied pages touched already.

    Returns:
        The size of its address space.
    """
    del options
    _rehearse()
    random.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return limits.mapped_bytes()


def _rehearse() -> None:
    """Walk the path of a task once: after a fork, the first touch of each page costs a copy."""
    task = {"env": {}, "label": "", "code": _WARM_TEXT, "inputs": pack({"x": [1.5, "text"]})}
    _answer(task)
    sys.modules.pop("__main__", None)
    linecache.clearcache()


def serve(channel: FrameSocket, prepared: int) -> None:
    """Take one task, run it, answer, and let the process end."""
    task = channel.receive()
    if task is None:
        return
    channel.send({"op": "started"})
    limits.apply_cpu_limit(task["cpu_s"])
    limits.apply_address_space_limit(prepared + task["memory_bytes"])
    answer = _answer(task)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the guest may have replaced or closed it
            stream.flush()
    channel.send(answer)


def _answer(task: dict[str, Any]) -> dict[str, Any]:
    import os

    os.environ.update(task["env"])
    filename = f"<{task['label'] or 'task'}>"
    try:
        program = source.parse(task["code"], filename)
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        value = source.run(program, module.__dict__, unpack(task["inputs"]))
        return {"op": "value", "value": pack(_leaving(value))}
    except (GuestSyntaxError, UnserializableValue) as error:
        return _report(type(error).__name__, error)
    except MemoryError:
        return {"op": "error", "type": "MemoryLimitExceeded", "what": "MemoryError"}
    except SystemExit as error:
        if error.code in (None, 0):
            return {"op": "value", "value": pack(None)}
        return {"op": "error", "type": "GuestException", "what": f"SystemExit: {error.code}", "where": filename}
    except BaseException as error:
        return {"op": "error", "type": "GuestException", **source.describe(error, filename)}


def _report(name: str, error: RunvisorError) -> dict[str, Any]:
    return {"op": "error", "type": name, "what": error.what, "where": error.where, "remedy": error.remedy}


def _leaving(value: Any) -> Any:
    """Turn a table into plain columns; anything else goes as it is."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return {str(name): value[name].to_list() for name in value.columns}
    if pandas is not None and isinstance(value, pandas.Series):
        return value.to_list()
    return value
