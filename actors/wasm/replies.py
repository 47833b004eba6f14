"""What an engine says of a module, and of what stopped a guest: read by the host, believed nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from runvisor.actors.wasm.backtraces import frames_of
from runvisor.actors.wasm.conventions import Entry, choose_entry
from runvisor.policies.errors import EngineRefused, GuestError, InvalidTask, LimitExceeded, ProtocolError, RunvisorError
from runvisor.policies.permissions import KiB

_MAX_TEXT: Final = 64 * KiB


@dataclass(frozen=True, slots=True)
class ModuleInfo:
    """What an engine says of a module that it has compiled."""

    entry: Entry | InvalidTask
    """What to call, or why nothing can be called."""
    functions: Mapping[str, tuple[list[str], list[str]]]

    @classmethod
    def from_wire(cls, data: Any) -> ModuleInfo:
        """Check and read a ``compile`` reply's ``module``.

        Raises:
            ProtocolError: It is not one.
        """
        try:
            functions: dict[str, tuple[list[str], list[str]]] = {}
            for name, (parameters, results) in data["functions"].items():
                if not isinstance(name, str) or not {*parameters, *results} <= {"i32", "i64", "f32", "f64"}:
                    raise TypeError(name)
                functions[name] = (list(parameters), list(results))
            others = [str(name) for name in data["other_functions"]]
            uses_wasi = bool(data["uses_wasi"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProtocolError(f"not a module description: {error}") from None
        entry: Entry | InvalidTask
        try:
            entry = choose_entry(functions, others, uses_wasi=uses_wasi)
        except InvalidTask as error:
            entry = error
        return cls(entry, functions)


def guest_error(data: Any) -> GuestError | LimitExceeded:
    """Read an ``error`` that an engine reports of its guest.

    Raises:
        ProtocolError: It is none that a guest can end with.
    """
    error = RunvisorError.from_wire(data)
    # No engine in wasm refuses what another may take, and the word would have the task run once more.
    if not isinstance(error, GuestError | LimitExceeded) or isinstance(error, EngineRefused):
        raise ProtocolError("the engine reports an error that is not its guest's")
    details: dict[str, Any] = {str(key)[:100]: _plain(item) for key, item in list(error.details.items())[:10]}
    where = error.where[:_MAX_TEXT]
    if frames := frames_of(str(details.get("traceback", ""))):
        details["frames"] = frames
        where = where or str(frames[0]["function"])
    return type(error)(error.what[:_MAX_TEXT], where, error.remedy[:_MAX_TEXT], details)


def _plain(item: object) -> str | int:
    return item if isinstance(item, int) else str(item)[:_MAX_TEXT]
