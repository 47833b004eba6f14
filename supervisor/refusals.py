"""Programs that an engine could not take: remembered, so that the next task goes straight to another one."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from runvisor.policies.errors import EngineRefused, GuestException, RunvisorError
from runvisor.policies.task import Task

_KEPT: Final = 1024
_LACKING: Final = frozenset({"wasm/cpython", "wasm/quickjs"})
"""Arms that have less than another one of their language."""
_LACKS: Final = ("ModuleNotFoundError:", "ImportError:", "NotImplementedError:", "ReferenceError:")


class Refusals:
    """Which arms refused which programs lately. Safe to use from many threads.

    A hint: an arm may take the same text with other inputs, and is then not asked.
    Both answer alike.

    Args:
        kept: How many programs to keep.

    Example:
        >>> refusals = Refusals()
        >>> task = Task("int on_record() {}", "c-record")
        >>> refusals.add(task, "ebpf/record", EngineRefused("the program is too long", "instructions"))
        >>> refusals.of(task), refusals.of(Task("int x;", "c-record"))
        ({'ebpf/record': 'the program is too long'}, {})
    """

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._arms: OrderedDict[bytes, dict[str, str]] = OrderedDict()

    def of(self, task: Task) -> Mapping[str, str]:
        """Return why by the name of each arm that refused the task's program."""
        if not self._arms:
            return {}
        with self._lock:
            return dict(self._arms.get(_key(task), {}))

    def add(self, task: Task, arm: str, refusal: EngineRefused) -> None:
        """Remember a refusal; the programs that were refused longest ago are forgotten."""
        with self._lock:
            self._arms.setdefault(_key(task), {})[arm] = refusal.what
            self._arms.move_to_end(_key(task))
            while len(self._arms) > self._kept:
                self._arms.popitem(last=False)


def says_unfit(arm: str, error: RunvisorError | None) -> bool:
    """Say whether an error tells that the program met what the arm lacks, though another may have it.

    How soon it met that says nothing of how fast the arm is.

    Args:
        arm: Where it ran.
        error: What it ended with.

    Example:
        >>> says_unfit("wasm/cpython", GuestException("ModuleNotFoundError: No module named 'numpy'"))
        True
        >>> says_unfit("python/native", GuestException("ModuleNotFoundError: No module named 'nunpy'"))
        False
    """
    if isinstance(error, EngineRefused):
        return True
    return isinstance(error, GuestException) and arm in _LACKING and error.what.startswith(_LACKS)


def _key(task: Task) -> bytes:
    """Return what a refusal depends on; limits grow with trust."""
    code = task.code.encode(errors="surrogatepass") if isinstance(task.code, str) else task.code
    return hashlib.sha256(f"{task.language}\0{task.trust.value}\0".encode() + code).digest()
