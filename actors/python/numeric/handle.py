"""What stands at the head of an instrumented function and decides who runs a call."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from time import perf_counter
from types import CodeType, FunctionType
from typing import Any, Final

from runvisor.actors.python.numeric.engine import Engine, Halted
from runvisor.actors.python.numeric.marshal import describe
from runvisor.actors.python.numeric.registry import Registry
from runvisor.actors.python.numeric.specialised import Specialised
from runvisor.policies.numeric.estimate import seconds
from runvisor.policies.numeric.types import Unsupported

_LOOK_EVERY: Final = 256
"""Inner calls of a recursion between two looks at the clock."""
_COMPARE_EVERY: Final = 64
"""Accelerated calls between two comparisons with CPython."""
_COMPARE_AT: Final = (2, 8)
"""Earlier comparisons, for calls of which few cost much already."""
_COMPUTES: Final = 0.2
"""A smaller share of a call in the compiled code means that copying lists is most of it."""
_SHORT_S: Final = 50e-6
"""The overhead of a call may matter in calls up to this."""
_MAX_SIGNATURES: Final = 8
_MAX_ACTIVE: Final = 64
"""A recursion that is so deep in CPython goes on there: it was tried before."""


@dataclass(frozen=True, slots=True)
class When:
    """When a function is compiled, and when it is given back."""

    ahead_s: float = 0.02
    """What a call must be guessed to take to be compiled before it: about twice what compiling takes."""
    observed_s: float = 0.01
    """What a function must have taken in CPython to be compiled."""
    max_halts: int = 3
    """Fallbacks after which a function is given up, unless far more calls went well."""
    worth: float = 0.9
    """The share of CPython's time that an accelerated call may take."""
    max_modules: int = 256
    """Most modules of a task or session; their code stays in memory, some 100 KB each."""


class Report:
    """What was compiled and how it went, for the result to say."""

    def __init__(self) -> None:
        self.compiled: set[str] = set()
        self.modules = 0
        self.accelerated = 0
        self.fallbacks: Counter[str] = Counter()
        self.compile_s = 0.0

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "functions_compiled": sorted(self.compiled),
            "calls_accelerated": self.accelerated,
            "fallbacks": dict(self.fallbacks),
            "compile_ms": round(self.compile_s * 1e3, 3),
        }

    def sentence(self) -> str:
        """Say it in one sentence, for people."""
        if not self.compiled:
            return "no function became hot; all ran in CPython"
        text = f"compiled to WebAssembly: {', '.join(sorted(self.compiled))}; {self.accelerated} calls ran there"
        if self.fallbacks:
            why = ", ".join(f"{reason} ({count})" for reason, count in sorted(self.fallbacks.items()))
            text += f", and these went back to CPython: {why}"
        return text


class Handle:
    """One function's state: cold, then compiled by signature, then perhaps off for good.

    Args:
        key: Which function.
        registry: All functions.
        namespace: Their globals.
        engine: Where compiled code runs.
        report: Where to count.
        plain: The function's code without this handle, for when it is off.
        when: When to compile.
    """

    def __init__(
        self,
        key: str,
        registry: Registry,
        namespace: dict[str, Any],
        engine: Engine,
        report: Report,
        plain: CodeType,
        when: When,
    ) -> None:
        self._key = key
        self._name = key.partition("#")[0]
        self._registry = registry
        self._namespace = namespace
        self._engine = engine
        self._report = report
        self._plain = plain
        self._when = when
        self._values: dict[int, Any] = {}
        self._versions: dict[tuple[str, ...], Specialised | None] = {}
        self._scalar_versions: dict[tuple[type, ...], Specialised] = {}
        self._is_hot = False
        self._is_off = False
        self._active = 0
        self._inner_calls = 0
        self._cold_calls = 0
        self._began = 0.0
        self._python_calls = 0
        self._python_s = 0.0
        self._fast_calls = 0
        self._fast_s = 0.0
        self._computing_s = 0.0
        self._halts = 0

    def enter(self, *arguments: Any) -> bool:
        """Run the call if that pays; `take` then has its value. Else nothing has happened."""
        if self._is_off or self._active > _MAX_ACTIVE:
            return False
        if not (self._is_hot or self._heats_up(arguments)) or self._is_sample():
            return False
        try:
            if not self._engine.lock.acquire(blocking=False):
                raise Halted("another call was running")
            try:
                version = self._version(arguments)
                began = perf_counter()
                value = version(arguments)
            finally:
                self._engine.lock.release()
        except Halted as halt:
            self._fall_back(halt.reason)
            return False
        except Unsupported as fault:
            self._fall_back(fault.reason)
            return False
        self._values[threading.get_ident()] = value
        self._fast_calls += 1
        self._fast_s += perf_counter() - began
        self._computing_s += version.computing_s
        self._report.accelerated += 1
        return True

    def take(self) -> Any:
        """Return the value of the call that `enter` ran."""
        return self._values.pop(threading.get_ident())

    def begin(self) -> None:
        """Note that CPython runs the call."""
        if self._active == 0:
            self._began = perf_counter()
        self._active += 1

    def leave(self) -> None:
        """Note that CPython has run it."""
        self._active -= 1
        if self._active == 0:
            self._python_calls += 1
            self._python_s += perf_counter() - self._began

    def _heats_up(self, arguments: tuple[Any, ...]) -> bool:
        if self._active:  # a recursion, which is entered often and left late
            self._inner_calls += 1
            if self._inner_calls % _LOOK_EVERY:
                return False
            self._is_hot = perf_counter() - self._began > self._when.observed_s
        elif self._python_s > self._when.observed_s:
            self._is_hot = True
        else:
            self._cold_calls += 1
            if self._cold_calls & (self._cold_calls - 1):  # guessing costs more than a short call
                return False
            sizes = self._registry.size_of(self._key, arguments, self._namespace)
            calls = self._registry.callees(self._key)
            self._is_hot = seconds(self._registry.trees[self._key], sizes, calls) > self._when.ahead_s
        return self._is_hot

    def _is_sample(self) -> bool:
        """Whether this call is for CPython: because it is faster there, or to find out."""
        calls = self._fast_calls
        if (calls not in _COMPARE_AT and calls % _COMPARE_EVERY) or calls == 0 or self._active:
            return False
        fast_s = self._fast_s / calls
        if self._python_calls:
            if fast_s > self._when.worth * self._python_s / self._python_calls:
                self._switch_off("slower than CPython")
                return True
            if calls % _COMPARE_EVERY:
                return False
        # Long calls that mostly compute need no comparison; it would cost a long call of CPython.
        if fast_s > _SHORT_S and self._computing_s > _COMPUTES * self._fast_s:
            return False
        self._fast_calls, self._fast_s, self._computing_s = 0, 0.0, 0.0
        self._python_calls, self._python_s = 0, 0.0
        return True

    def _version(self, arguments: tuple[Any, ...]) -> Specialised:
        kinds = tuple(map(type, arguments))
        version = self._scalar_versions.get(kinds)
        if version is not None and version.is_current():
            return version
        signature = tuple(map(describe, arguments))
        version = self._versions.get(signature)
        if version is not None and not version.is_current():
            self._halts += 1
            version = None
            del self._versions[signature]
        if version is None:
            if signature in self._versions or len(self._versions) >= _MAX_SIGNATURES:
                raise Halted("a signature that is not compiled")
            if self._report.modules >= self._when.max_modules:
                raise Halted("too many compiled functions")
            self._report.modules += 1
            self._versions[signature] = None
            began = perf_counter()
            version = Specialised(self._engine, self._registry, self._key, signature, self._namespace)
            self._report.compile_s += perf_counter() - began
            self._report.compiled.update(key.partition("#")[0] for key in version.functions)
            self._versions[signature] = version
        if version.is_scalar:
            self._scalar_versions[kinds] = version
        return version

    def _fall_back(self, reason: str) -> None:
        self._report.fallbacks[f"{self._name}: {reason}"] += 1
        self._halts += 1
        if self._halts > self._when.max_halts and self._halts > self._fast_calls // 4:
            self._switch_off(f"gave up after {self._halts} calls")

    def _switch_off(self, reason: str) -> None:
        self._is_off = True
        self._report.fallbacks[f"{self._name}: {reason}"] += 1
        function = self._namespace.get(self._name)
        if isinstance(function, FunctionType) and self._registry.key_of(function) == self._key:
            self._registry.bind(self._key, self._plain)
            function.__code__ = self._plain
