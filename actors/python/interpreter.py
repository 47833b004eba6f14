"""One namespace of a guest: runs its task or its cells, and says of each what came of it."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final

from runvisor.actors.jail import limits
from runvisor.actors.python import plain, remedies, source, tracebacks
from runvisor.actors.python.coroutines import Coroutines
from runvisor.actors.python.screen import SCREEN
from runvisor.policies.errors import GuestSyntaxError, RunvisorError, UnserializableValue
from runvisor.policies.values import unpack

if TYPE_CHECKING:
    from runvisor.actors.python.numeric.accelerate import Accelerator

Reply = dict[str, Any]
_NOTHING: Final = object()


class Interpreter:
    """Runs guest code in a fresh ``__main__``; every way to end is a reply, none an exception.

    An interrupt of a cell is a reply too, while the guest's own code runs; the
    session catches one that comes later.

    Args:
        profiles: By the name of a package, the profile that has it, for the remedy of a missing import.
        accelerator: Compiles what is numeric and hot; None leaves all to CPython.
    """

    def __init__(self, profiles: Mapping[str, str] | None = None, accelerator: Accelerator | None = None) -> None:
        self._accelerator = accelerator
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self._namespace = module.__dict__
        self._profiles = profiles or {}
        self._coroutines = Coroutines()
        self._sources: set[str] = set()
        self._shown: Any = _NOTHING

    def run_task(self, code: str, label: str, inputs: bytes, buffers: Sequence[memoryview] = ()) -> Reply:
        """Run a task: its value is that of ``main`` or of its last expression.

        Args:
            code: Its source.
            label: Its name in tracebacks.
            inputs: Packed ``inputs``.
            buffers: What large parts of the inputs lie in.
        """
        filename = f"<{label or 'task'}>"

        def run() -> bytes:
            program = source.parse(code, filename, self._compile)
            try:
                outcome = source.run(program, self._namespace, unpack(inputs, buffers=buffers), self._coroutines)
            finally:
                self._coroutines.close()
            limits.ADDRESS_RESERVE.use()
            return self._leave(outcome.value) if outcome.is_last_expression else self._leave_plain(outcome.value)

        return self._answer(filename, run)

    def run_cell(self, number: int, code: str, inputs: bytes, buffers: Sequence[memoryview] = ()) -> Reply:
        """Run a cell of a session, in the namespace that the cells before it have left.

        Args:
            number: Which cell it is; tracebacks call it ``<cell 3>``.
            code: Its source.
            inputs: Packed ``inputs``.
            buffers: What large parts of the inputs lie in.
        """
        filename = f"<cell {number}>"

        def run() -> bytes:
            program = source.parse(code, filename, self._compile)
            value = source.run_cell(program, self._namespace, unpack(inputs, buffers=buffers), self._coroutines)
            self._remember(value)
            limits.ADDRESS_RESERVE.use()
            return self._leave(value, always=True)

        return self._answer(filename, run, is_cell=True)

    def _compile(self, tree: ast.Module, filename: str, flags: int) -> CodeType:
        if self._accelerator is None:
            return source.compile_plainly(tree, filename, flags)
        return self._accelerator.compile(tree, filename, self._namespace, flags)

    def interrupt(self, frame: FrameType | None) -> None:
        """Interrupt the cell that runs (for a signal handler).

        Args:
            frame: What was interrupted.

        Raises:
            KeyboardInterrupt: There; or in what is awaited, a little later.
        """
        if not self._coroutines.interrupt(frame):
            raise KeyboardInterrupt

    def _remember(self, value: Any) -> None:
        """Bind ``_`` to the last value, unless the guest has given that name a meaning of its own."""
        if value is not None and self._namespace.get("_", self._shown) is self._shown:
            self._namespace["_"] = self._shown = value

    def _leave_plain(self, value: Any) -> bytes:
        SCREEN.show_figures()
        return plain.packed(value)

    def _leave(self, value: Any, *, always: bool = False) -> bytes:
        """Show a last expression as a notebook would, and return what leaves as the value.

        What has no plain form is None, with its text beside what was shown. A
        task that shows nothing was after the value: there it is an error,
        unless ``always``.
        """
        SCREEN.show_rich(value, "result")
        SCREEN.show_figures()
        try:
            return plain.packed(value)
        except UnserializableValue:
            if not SCREEN and not always:
                raise
            SCREEN.add_text(value, "result")
            return plain.packed(None)

    def _answer(self, filename: str, run: Callable[[], bytes], *, is_cell: bool = False) -> Reply:
        self._sources.add(filename)
        reply: Reply
        try:
            reply = {"op": "value", "value": run()}
        except (GuestSyntaxError, UnserializableValue) as error:
            reply = _report(error)
        except MemoryError:
            reply = {"op": "error", "type": "MemoryLimitExceeded", "what": "MemoryError"}
        except SystemExit as error:
            if error.code in (None, 0):
                reply = {"op": "value", "value": plain.packed(None)}
            else:
                what = f"SystemExit: {error.code}"
                reply = {"op": "error", "type": "GuestException", "what": what, "where": filename}
        except BaseException as error:
            reply = {
                "op": "error",
                "type": "GuestInterrupted" if is_cell and isinstance(error, KeyboardInterrupt) else "GuestException",
                **tracebacks.describe(error, self._sources.__contains__),
                "remedy": remedies.remedy_for(error, self._profiles),
            }
        SCREEN.show_figures()
        if artifacts := SCREEN.take():
            reply["artifacts"] = artifacts
        if self._accelerator is not None:
            reply["note"] = self._accelerator.report.sentence()
        return reply


def _report(error: RunvisorError) -> Reply:
    reply = {"op": "error", "type": type(error).__name__, "what": error.what}
    return {**reply, "where": error.where, "remedy": error.remedy, **error.details}
