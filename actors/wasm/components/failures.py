"""Why a call of a component did not return: its traps carry no code, only words."""

from __future__ import annotations

import re
from typing import Final

from runvisor.actors.wasm import capi
from runvisor.actors.wasm.components.world import Surroundings
from runvisor.actors.wasm.fastpath import Stopped
from runvisor.actors.wasm.run import explain
from runvisor.policies import errors

_CODES: Final = {
    "all fuel consumed by WebAssembly": capi.OUT_OF_FUEL,
    "call stack exhausted": capi.STACK_OVERFLOW,
}
_MEMORY_COUNT: Final = "resource limit exceeded: memory count too high"
_COPIED_TOO_MUCH: Final = "fuel allocated for hostcalls has been exhausted"
_MISSING: Final = re.compile(r"unknown import: `([^`]+)` has not been defined")


def explain_failure(
    stopped: Stopped, surroundings: Surroundings, timeout_s: float, fuel: int | None
) -> errors.RunvisorError:
    """Say why it ended.

    Args:
        stopped: How.
        surroundings: The run's.
        timeout_s: How long it might take.
        fuel: How many instructions it might run.
    """
    reason = stopped.reason
    code = next((code for words, code in _CODES.items() if words in reason), None)
    if surroundings.overflowed:
        return errors.OutputLimitExceeded(
            f"the task printed more than {surroundings.output_bytes} bytes",
            "output_bytes",
            "print less, or raise output_bytes; the first part is in stdout",
        )
    if code == capi.OUT_OF_FUEL:
        return errors.InstructionLimitExceeded(
            f"the program ran more than {fuel} instructions", "instructions", "raise instructions, or do less"
        )
    if code == capi.STACK_OVERFLOW:
        return errors.GuestException(
            "the call stack is exhausted", "", "recurse less deeply, or loop", {"traceback": stopped.message}
        )
    if _MEMORY_COUNT in reason:
        return errors.MemoryLimitExceeded(
            "the component has several linear memories, each of which could take the whole limit",
            "memory_bytes",
            "link it into one memory",
        )
    if _COPIED_TOO_MUCH in reason:
        return errors.OutputLimitExceeded(
            "what it gives back or prints is too large to be copied", "value", "return a summary, or return less"
        )
    if code is None and (missing := _MISSING.search(reason)):
        return errors.GuestException(
            f"it used {missing[1]}, which there is not here", "", "", {"traceback": stopped.message}
        )
    return explain(stopped, surroundings.deadlines, surroundings.token, timeout_s)
