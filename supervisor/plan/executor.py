"""The executor: what the manager hands subtasks to, and one attempt at one of them."""

from __future__ import annotations

from typing import Protocol

from runvisor.policies.errors import ProtocolError, RunvisorError
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.trust import Trust
from runvisor.policies.values import Value, pack
from runvisor.supervisor.plan.model import Step


class Executor(Protocol):
    """Runs one subtask in a sandbox of its own. Called from many threads at once."""

    def run(
        self,
        code: str | bytes,
        *,
        language: str,
        inputs: Value,
        permissions: Permissions,
        trust: Trust,
        label: str,
        objective: Objective | None,
        critical: bool,
    ) -> Result:
        """Run the code and wait for its outcome.

        Args:
            code: Source text, or a module's bytes.
            language: A language of `model.STEP_LANGUAGES`.
            inputs: What the code sees as ``inputs``.
            permissions: All it may have; never wider than the plan's.
            trust: What the plan claims for it.
            label: The subtask's name, for people.
            objective: What the choice of a runtime is to make small; None leaves it to the executor.
            critical: No runtime is to be tried on it merely to learn.

        Raises:
            RunvisorError: It could not be run. The guest's own failures may also be raised.
        """
        ...


def attempt(
    executor: Executor, step: Step, *, inputs: Value, permissions: Permissions, label: str
) -> tuple[Result | None, RunvisorError | None]:
    """Run a step's code once and return what came of it; raises nothing.

    An executor that breaks its protocol, by raising anything but a
    `RunvisorError` or by returning anything but a `Result`, gives a
    `ProtocolError`: a thread that ended in silence would hang the plan.

    Returns:
        The result, if there is one, and the error, if it failed.
    """
    where = f"step {label}"
    try:
        result = executor.run(
            step.code,
            language=step.language,
            inputs=inputs,
            permissions=permissions,
            trust=step.trust,
            label=label,
            objective=step.objective,
            critical=step.critical,
        )
    except RunvisorError as raised:
        return None, _packable(raised)
    except BaseException as raised:  # also SystemExit, which would end the thread without a word
        return None, ProtocolError(f"the executor raised {type(raised).__name__}: {raised}", where)
    if not isinstance(result, Result):
        return None, ProtocolError(f"the executor returned a {type(result).__name__}, not a Result", where)
    return result, result.error


def _packable(error: RunvisorError) -> RunvisorError:
    """Return the error as it is if it can be sent on, else without its details."""
    try:
        pack(error.to_wire())
    except RunvisorError:
        return RunvisorError.from_wire({"type": type(error).__name__, "args": [*map(str, error.args[:3]), {}]})
    return error
