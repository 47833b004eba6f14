"""On the host: the work of calling one function of a component in an engine process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.components.agreement import CALL, DESCRIBE, LOAD, METERED_PROFILE, PROFILE
from runvisor.actors.wasm.components.requests import Asking
from runvisor.actors.wasm.executions import Module, Outcome
from runvisor.actors.wasm.lanes import Lane, Unanswered
from runvisor.actors.wasm.links import EngineLink
from runvisor.actors.wasm.replies import guest_error
from runvisor.policies.errors import GuestCrashed, InvalidTask, ProtocolError, RunvisorError
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.values import Value, pack

_KEYS: Final = ("function", "arguments")


@dataclass(slots=True, eq=False)
class ComponentRun:
    """The work of running a task whose code is a component.

    Args:
        task: Its inputs are ``{"function": ..., "arguments": ...}``, or ``{"describe": True}``.
        permissions: The grant's.
        watch: See `Asking`.

    Raises:
        InvalidTask: The inputs are something else.
    """

    task: Task
    permissions: Permissions
    watch: Watch
    input_bytes: int = 0
    """Bytes of the arguments."""
    _module: Module = field(init=False)
    _request: Message = field(init=False)
    _asking: Asking = field(init=False)

    def __post_init__(self) -> None:
        self._request = _request_of(self.task.inputs)
        self.input_bytes = len(self._request.get("arguments", b""))
        self._module = Module.of(self.task.code, is_text=isinstance(self.task.code, str))
        self._asking = Asking(self.permissions, self.watch)

    def __call__(self, link: EngineLink, lane: Lane) -> Outcome:
        """Compile it if the engine does not have it, and call the function."""
        profile = METERED_PROFILE if self._asking.is_counted else PROFILE
        request = {**self._request, "key": self._module.digest, "profile": profile}
        was_cold = False
        for _ in range(2):  # a second time when the engine does not have the component
            outcome = self._asking.ask(link, lane, request, self.permissions.memory_bytes)
            if isinstance(outcome, Outcome):
                return replace(outcome, was_cold=True) if was_cold else outcome
            if "refused" in outcome:
                raise _refusal(outcome["refused"])
            was_cold = True
            self._load(link, lane, profile)
        raise ProtocolError("the engine forgets a component that it has just loaded")

    def _load(self, link: EngineLink, lane: Lane, profile: str) -> None:
        module = self._module
        try:
            reply = link.load(lane, module.digest, module.code, profile, is_text=module.is_text, request=LOAD)
        except Unanswered:
            link.condemn()
            raise GuestCrashed("the component could not be loaded in time", "compile", "make it smaller") from None
        if "error" in reply:
            raise guest_error(reply["error"])


def _request_of(inputs: Value) -> Message:
    """Return the arm's own part of the request."""
    if inputs is None:
        inputs = {}
    if not isinstance(inputs, Mapping):
        raise InvalidTask(
            f"inputs of type {type(inputs).__name__}", "inputs", "write {'function': ..., 'arguments': ...}"
        )
    if inputs.get("describe") is True and len(inputs) == 1:
        return {"op": DESCRIBE}
    if unknown := [str(name) for name in inputs if name not in _KEYS]:
        raise InvalidTask(f"inputs have no {unknown[0][:80]!r}", "inputs", "write {'function': ..., 'arguments': ...}")
    function, arguments = inputs.get("function", ""), inputs.get("arguments", [])
    if not isinstance(function, str):
        raise InvalidTask("the function's name is no text", "inputs.function", "write 'name' or 'interface#name'")
    if not isinstance(arguments, list | tuple | Mapping):
        raise InvalidTask("the arguments are neither a mapping nor a list", "inputs.arguments")
    try:
        return {"op": CALL, "function": function, "arguments": pack(arguments)}
    except RunvisorError as error:
        raise InvalidTask(error.what, error.where.replace("value", "arguments", 1), error.remedy) from None


def _refusal(data: Any) -> InvalidTask:
    """Read why the engine did not take the arguments.

    Raises:
        ProtocolError: It says something else.
    """
    error = RunvisorError.from_wire(data)
    if not isinstance(error, InvalidTask):
        raise ProtocolError("the engine refuses the arguments with another error")
    return InvalidTask(error.what[:2000], error.where[:2000], error.remedy[:2000])
