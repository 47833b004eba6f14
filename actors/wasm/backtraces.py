"""The frames of a wasm backtrace, read from what Wasmtime says of a trap."""

from __future__ import annotations

import re
from typing import Final

_MAX_FRAMES: Final = 32
_MAX_NAME: Final = 200
_HEADING: Final = "wasm backtrace:\n"
_FRAME: Final = re.compile(r"\s*\d+:\s+(?:0x([0-9a-f]{1,16}) - )?(?:[^\n!]*!)?([^\n]+)")
_UNNAMED: Final = re.compile(r"<wasm function (\d{1,10})>")


def frames_of(message: str) -> list[dict[str, str | int]]:
    r"""Return the innermost frames of a trap, first the one that trapped.

    A frame has a ``function``: its name in the module's name section, or
    ``func[index]``; and an ``offset``: its byte in the module, where it is known.
    The names are the guest's own.

    Args:
        message: Wasmtime's whole message.

    Example:
        >>> frames_of("at wasm backtrace:\n 0:  0x1f - m!f\n 1:  0x2a - m!<wasm function 1>")
        [{'function': 'f', 'offset': 31}, {'function': 'func[1]', 'offset': 42}]
        >>> frames_of("something else")
        []
    """
    _, heading, text = message.partition(_HEADING)
    frames: list[dict[str, str | int]] = []
    for line in text.splitlines() if heading else ():
        match = _FRAME.fullmatch(line)
        if match is None or len(frames) == _MAX_FRAMES:
            break
        frame: dict[str, str | int] = {"function": _UNNAMED.sub(r"func[\1]", match[2])[:_MAX_NAME]}
        if match[1]:
            frame["offset"] = int(match[1], 16)
        frames.append(frame)
    return frames
