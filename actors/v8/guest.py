"""Inside the jail: one isolate, one task.

Results leave the isolate only as JSON text that its driver made; no object of
the task is ever touched from Python, because traps in getters, proxies and
dates hang or crash the bridge.
"""

from __future__ import annotations

import asyncio
import importlib.resources
import json
import os
import re
from typing import Any, Final

from py_mini_racer import DEFAULT_V8_FLAGS, JSOOMException, JSParseException, MiniRacer, init_mini_racer

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import limits
from runvisor.policies.values import pack, to_json, unpack

_FILENAME: Final = "task.js"
_MAX_HEAP_MIB: Final = 4096
_POLL_S: Final = 0.002
_MAIN_BINDING: Final = re.compile(r"^(const|let)(\s+main\s*=)", re.MULTILINE)
_MAIN_CALL: Final = re.compile(r"^(?!\s*(?:async\s+)?function\b)[^\n]*?(?<![\w.$])main\s*\(", re.MULTILINE)
_OWN_FRAME: Final = re.compile(rf"^\s+at .*{re.escape(_FILENAME)}:\d+:\d+.*$", re.MULTILINE)
_PLACE: Final = re.compile(rf"{re.escape(_FILENAME)}:(\d+):(\d+)")
_PARSE_PLACE: Final = re.compile(r"<anonymous>:(\d+)")
_WRAPPER: Final = "(async()=>{"

_driver = ""


def preload(options: dict[str, Any]) -> None:
    """Load V8, but start no isolate: a fork after the first isolate hangs."""
    del options
    global _driver
    init_mini_racer(flags=[*DEFAULT_V8_FLAGS, f"--max-heap-size={_MAX_HEAP_MIB}"])
    _driver = importlib.resources.files("runvisor.actors.v8").joinpath("driver.js").read_text()


def prepare(options: dict[str, Any]) -> MiniRacer:
    """Start the isolate: its threads must exist before seccomp binds them all."""
    del options
    isolate = MiniRacer()
    isolate.eval(_driver)
    # Walk the path of a task once: after a fork, the first touch of each page costs a copy.
    _answer(isolate, {"code": "1", "inputs": pack(None), "memory_bytes": 1 << 30, "output_bytes": 0})
    isolate.eval("delete globalThis.inputs")
    return isolate


def serve(channel: FrameSocket, prepared: MiniRacer) -> None:
    """Take one task, run it, answer, and let the process end."""
    task = channel.receive()
    if task is None:
        return
    channel.send({"op": "started"})
    limits.apply_cpu_limit(task["cpu_s"])
    channel.send(_answer(prepared, task))
    os._exit(0)  # closing an isolate deadlocks when its task still runs


def _answer(isolate: MiniRacer, task: dict[str, Any]) -> dict[str, Any]:
    """Answer on the isolate's own event loop: from any other thread each evaluation takes six switches."""
    context = isolate._ctx
    assert context is not None
    return asyncio.run_coroutine_threadsafe(_answer_on_loop(isolate, task), context.event_loop).result()


async def _answer_on_loop(isolate: MiniRacer, task: dict[str, Any]) -> dict[str, Any]:
    isolate.set_hard_memory_limit(task["memory_bytes"])
    code = _visible_main(task["code"])
    arguments = (
        f"{code}\n//# sourceURL={_FILENAME}",
        json.dumps(to_json(unpack(task["inputs"]))),
        task["output_bytes"],
        bool(_MAIN_CALL.search(code)),
    )
    try:
        isolate.eval(f"__runvisor.driver({', '.join(map(json.dumps, arguments))})")
        while not (text := isolate.eval("__runvisor.report()")):
            await asyncio.sleep(_POLL_S)  # a promise that never settles ends at the host's deadline
        assert isinstance(text, str)
        report = json.loads(text)
    except JSOOMException:
        return {"op": "error", "type": "MemoryLimitExceeded", "what": "JSOOMException"}
    except (RecursionError, ValueError) as error:
        return _error("UnserializableValue", f"the value cannot leave the sandbox: {error}", "value")
    _print(1, report["out"])
    _print(2, report["err"])
    return _read(isolate, task["code"], report["outcome"])


def _visible_main(code: str) -> str:
    """Let ``const main = ...`` be found as ``function main`` is, without moving a column."""
    return _MAIN_BINDING.sub(lambda match: "var".ljust(len(match[1])) + match[2], code, count=1)


def _print(fd: int, text: str) -> None:
    data = memoryview(text.encode(errors="replace"))
    while data:
        data = data[os.write(fd, data) :]


def _read(isolate: MiniRacer, code: str, outcome: dict[str, Any]) -> dict[str, Any]:
    if outcome["kind"] == "value":
        return {"op": "value", "value": pack(outcome["json"])}
    if outcome["kind"] == "unserializable":
        return _error(
            "UnserializableValue",
            f"{outcome['what']} cannot leave the sandbox",
            "value",
            "return null, booleans, numbers, text, arrays or plain objects",
        )
    stack = outcome["stack"]
    place = _PLACE.search(stack)
    if outcome["syntax"] and place is None:
        return _error("GuestSyntaxError", outcome["what"], _syntax_place(isolate, code), "")
    frames = "\n".join(_OWN_FRAME.findall(stack))
    where = f"{place[1]}:{place[2]}" if place else ""
    answer = _error("GuestException", outcome["what"], where, "")
    answer["traceback"] = f"{outcome['what']}\n{frames}".rstrip() + "\n"
    return answer


def _syntax_place(isolate: MiniRacer, code: str) -> str:
    """Parse the code once more, inside a function that is never called, to learn where it fails."""
    try:
        isolate.eval(f"{_WRAPPER}{code}\n}})")
    except JSParseException as error:
        text = str(error)
        line = _PARSE_PLACE.search(text)
        caret = next((row.index("^") for row in text.splitlines() if row.strip("^ \t") == "" and "^" in row), 0)
        if line:
            shift = len(_WRAPPER) if line[1] == "1" else 0
            return f"{line[1]}:{max(1, caret + 1 - shift)}"
    return "1:1"


def _error(kind: str, what: str, where: str, remedy: str = "") -> dict[str, Any]:
    return {"op": "error", "type": kind, "what": what, "where": where, "remedy": remedy}
