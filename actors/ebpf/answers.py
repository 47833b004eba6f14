"""What an executor may answer: it serves hostile programs, and is believed nothing that was not agreed."""

from __future__ import annotations

import math
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.policies.errors import ProtocolError

_FAILURES: Final = ("no memory", "failed")


def checked_load(answer: Message) -> Message:
    """Return the answer to a request to load, if it is one.

    Raises:
        ProtocolError: It is none.

    Example:
        >>> checked_load({"op": "silent"})
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.ProtocolError: it answers 'silent' (at ebpf)
    """
    kind = _kind(answer, ("loaded", "refused", *_FAILURES))
    if kind == "refused" and not isinstance(answer.get("log"), str):
        raise ProtocolError("it gives no reason for refusing a program", "ebpf")
    return answer


def checked_run(answer: Message) -> Message:
    """Return the answer to a request to run, if it is one.

    Raises:
        ProtocolError: It is none.
    """
    if _kind(answer, ("done", "late", *_FAILURES)) == "done":
        cpu_s = answer.get("cpu_s")
        if not isinstance(cpu_s, float) or not 0.0 <= cpu_s < math.inf:
            raise ProtocolError("its CPU time is no number", "ebpf")
    return answer


def checked_state(answer: Message, state_bytes: int) -> Message:
    """Return the last answer of an execution that is done, if it has the state.

    Raises:
        ProtocolError: It has none of that size.
    """
    state = answer.get("state")
    if not isinstance(state, bytes) or len(state) != state_bytes:
        raise ProtocolError(f"it answers with no state of {state_bytes} bytes", "ebpf")
    return answer


def _kind(answer: Message, agreed: tuple[str, ...]) -> str:
    kind = answer.get("op")
    if not isinstance(kind, str) or kind not in agreed:
        raise ProtocolError(f"it answers {str(kind)[:40]!r}", "ebpf")
    return kind
