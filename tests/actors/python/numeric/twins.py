"""Runs one source accelerated and plain, and tells what each did."""

from __future__ import annotations

import ast
import copy
import math
import struct
from dataclasses import dataclass
from typing import Any

from runvisor.actors.python.numeric.accelerate import Accelerator
from runvisor.actors.python.numeric.engine import process_engine
from runvisor.actors.python.numeric.handle import When

ALWAYS = When(ahead_s=0.0, max_halts=10**9, worth=math.inf)
"""Examples are small and mostly edge cases: every one of them is to be compiled all the same."""


@dataclass
class Outcome:
    """What a call did, in a form where NaN equals NaN, and 1, 1.0 and True differ."""

    value: Any
    error: tuple[str, str] | None
    arguments: Any


class Twins:
    """One source in two namespaces.

    Args:
        source: Defines functions.
    """

    def __init__(self, source: str) -> None:
        self.accelerator = Accelerator(process_engine(), ALWAYS)
        self.fast: dict[str, Any] = {}
        self.plain: dict[str, Any] = {}
        exec(self.accelerator.compile(ast.parse(source), "<task>", self.fast), self.fast)
        exec(compile(source, "<task>", "exec"), self.plain)

    @property
    def report(self) -> dict[str, Any]:
        return self.accelerator.report.document()

    def both(self, name: str, *arguments: Any) -> tuple[Outcome, Outcome]:
        """Call both with arguments of their own; aliases among them stay aliases."""
        return _outcome(self.fast[name], copy.deepcopy(arguments)), _outcome(self.plain[name], copy.deepcopy(arguments))

    def agree(self, name: str, *arguments: Any) -> Outcome:
        """Call both, demand that they did the same, and return what."""
        ours, theirs = self.both(name, *arguments)
        assert ours == theirs
        return theirs


def _outcome(function: Any, arguments: tuple[Any, ...]) -> Outcome:
    try:
        value, error = function(*arguments), None
    except Exception as fault:
        # CPython's words for it depend on what the deepest frame was at.
        words = "" if isinstance(fault, RecursionError) else str(fault)
        value, error = None, (type(fault).__name__, words)
    return Outcome(exact(value), error, exact(list(arguments)))


def exact(value: Any) -> Any:
    """Spell a value so that equality means the same type and the same bits."""
    if isinstance(value, list | tuple):
        return (type(value).__name__, *map(exact, value))
    if isinstance(value, float):
        return ("float", "nan" if math.isnan(value) else struct.pack("<d", value))
    return (type(value).__name__, value)
