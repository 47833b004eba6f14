"""What a program of the workload is: a source, and inputs of several sizes."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.policies.values import Value

SIZE: Final = "$N"
"""What stands in a source for a size that is written into the code."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program and the sizes that it is asked for with.

    Example:
        >>> Program("sum", "loops", "python", "sum(range($N))", (10, 1000)).task(10).code
        'sum(range(10))'
    """

    name: str
    family: str
    """Programs that are alike in what they do; a whole family is held out of training or none of it."""
    language: str
    source: str
    sizes: tuple[int, ...] = (1,)
    """From small to large."""
    inputs: Callable[[int], Value] | None = None
    """Makes the inputs of a size, always the same ones; None is a size in the code, or none."""
    trust: Trust = Trust.UNTRUSTED

    def task(self, size: int) -> Task:
        """Return the task of one size."""
        inputs = None if self.inputs is None else self.inputs(size)
        return Task(self.source.replace(SIZE, str(size)), self.language, inputs, trust=self.trust, label=self.name)


def itself(size: int) -> Value:
    """Return the size as the inputs: a number says nothing of itself on the wire."""
    return size


def whole_numbers(size: int) -> Value:
    """Return so many numbers below a million."""
    chance = random.Random(size)
    return [chance.randrange(1_000_000) for _ in range(size)]


def words(size: int) -> Value:
    """Return a text of so many words, some of them often."""
    chance = random.Random(size)
    known = ["".join(chance.choices(string.ascii_lowercase, k=chance.randint(2, 9))) for _ in range(200)]
    return " ".join(known[int(200 * chance.random() ** 2)] for _ in range(size))


def letters(size: int) -> Value:
    """Return two texts of so many letters out of four."""
    chance = random.Random(size)
    return ["".join(chance.choices("acgt", k=size)) for _ in range(2)]


def rows(size: int) -> Value:
    """Return so many small records, as JSON has them."""
    chance = random.Random(size)
    kinds = ("tea", "ink", "oak", "sea", "fog")
    return [
        {"id": number, "kind": chance.choice(kinds), "amount": chance.randrange(10_000), "open": chance.random() < 0.3}
        for number in range(size)
    ]


def log_lines(size: int) -> Value:
    """Return the text of so many lines of a log."""
    chance = random.Random(size)
    verbs, levels = ("GET", "PUT", "POST"), ("info", "warn", "error")
    return "\n".join(
        f"2026-0{chance.randint(1, 9)}-1{chance.randint(0, 9)} {chance.choice(levels)} "
        f"{chance.choice(verbs)} /item/{chance.randrange(999)}?user=u{chance.randrange(50)}"
        f"@host{chance.randrange(9)}.net {chance.randrange(900)}ms"
        for _ in range(size)
    )


def edges(size: int) -> Value:
    """Return a graph of so many nodes with three ways out of each: [from, to, length]."""
    chance = random.Random(size)
    return [[node, chance.randrange(size), chance.randint(1, 99)] for node in range(size) for _ in range(3)]
