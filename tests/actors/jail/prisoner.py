"""A guest module for tests of the jail: evaluates what it is sent, so that a test can look around inside."""

from __future__ import annotations

import os
from typing import Any

from runvisor.actors.channel.frames import FrameSocket


def preload(options: dict[str, Any]) -> None:
    """Nothing to preload."""


def prepare(options: dict[str, Any]) -> dict[str, Any]:
    return {"os": os}


def serve(channel: FrameSocket, prepared: dict[str, Any]) -> None:
    while (message := channel.receive()) is not None:
        try:
            exec(message.get("do", ""), prepared)
            answer: Any = eval(message.get("value", "None"), prepared)
            channel.send({"value": answer})
        except BaseException as error:
            channel.send({"error": type(error).__name__, "text": str(error)})
