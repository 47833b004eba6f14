"""A guest module: makes the engine where a zygote would, and accelerates what it is sent, in the jail."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.jail import limits
from runvisor.actors.python.numeric import accelerate, engine
from runvisor.actors.python.numeric.accelerate import Accelerator
from runvisor.actors.python.numeric.handle import When


def preload(options: dict[str, Any]) -> None:
    reason = accelerate.preload()
    if reason:
        raise RuntimeError(reason)


def prepare(options: dict[str, Any]) -> int:
    return limits.mapped_bytes()


def serve(channel: FrameSocket, prepared: int) -> None:
    message = channel.receive()
    assert message is not None
    limits.apply_address_space_limit(prepared + int(message["memory_bytes"]))
    accelerator = Accelerator(engine.process_engine(), When(ahead_s=0.0))
    namespace: dict[str, Any] = {}
    try:
        exec(accelerator.compile(ast.parse(message["code"]), "<task>", namespace), namespace)
        value = eval(message["value"], namespace)
    except BaseException as error:
        value = f"{type(error).__name__}: {error}"
    threads = len(list(Path("/proc/self/task").iterdir()))
    channel.send({"value": value, "report": accelerator.report.document(), "threads": threads})
