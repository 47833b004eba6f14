"""A recording: what each run of each program on each arm took, in a compact file.

Times are whole microseconds in columns, deflated: 50,000 runs take a few hundred
kilobytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np

FORMAT: Final = 1
_COLUMNS: Final = ("cell", "elapsed_us", "service_us", "wait_us", "flags")
_COLD, _FAILED, _HOGGED = 1, 2, 4
Key = tuple[str, int, str]
"""(program, place among its sizes, arm)."""
Columns = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, slots=True)
class Run:
    """One execution, as the caller and the pool saw it."""

    key: Key
    elapsed_s: float
    """From the caller's request to its result: all that a caller feels."""
    service_s: float
    """As the result's ``usage.wall_s``: what policies learn from."""
    wait_s: float
    """As the result's ``usage.queue_s``."""
    cold: bool = False
    failed: bool = False
    hogged: bool = False
    """Whether another process kept one core busy meanwhile."""


@dataclass(frozen=True)
class Recording:
    """All runs, and where they were made."""

    about: Mapping[str, Any]
    """Machine, commit, seed, pools."""
    runs: tuple[Run, ...] = field(repr=False)

    def save(self, path: Path) -> None:
        """Write it to a file."""
        keys = sorted({run.key for run in self.runs})
        number = {key: place for place, key in enumerate(keys)}
        table = np.array([_row(run, number[run.key]) for run in self.runs], np.int32).reshape(-1, len(_COLUMNS))
        columns = {name: zlib.compress(table[:, place].tobytes(), 9) for place, name in enumerate(_COLUMNS)}
        document = {"format": FORMAT, "about": dict(self.about), "cells": keys, "columns": columns}
        path.write_bytes(packed(document))

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a file that `save` wrote.

        Raises:
            ValueError: It is of another format.
        """
        document = msgpack.unpackb(path.read_bytes(), strict_map_key=False)
        if document.get("format") != FORMAT:
            raise ValueError(f"{path} is no recording of format {FORMAT}; record again")
        keys: list[Key] = [(str(program), int(place), str(arm)) for program, place, arm in document["cells"]]
        columns = [np.frombuffer(zlib.decompress(document["columns"][name]), np.int32) for name in _COLUMNS]
        return cls(
            document["about"], tuple(_run(keys, *row) for row in zip(*map(np.ndarray.tolist, columns), strict=True))
        )

    def arms(self) -> dict[str, tuple[str, ...]]:
        """Return the arms that ran each program."""
        found: dict[str, set[str]] = {}
        for run in self.runs:
            found.setdefault(run.key[0], set()).add(run.key[2])
        return {program: tuple(sorted(arms)) for program, arms in found.items()}

    def cells(self, *, hogged: bool = False) -> dict[Key, list[Run]]:
        """Return the runs of each cell that did not fail, in the order in which they were made."""
        found: dict[Key, list[Run]] = {}
        for run in self.runs:
            if run.hogged == hogged and not run.failed:
                found.setdefault(run.key, []).append(run)
        return found


def packed(document: object) -> bytes:
    """Return plain data as msgpack."""
    return msgpack.packb(document) or b""


def split(runs: Iterable[Run]) -> tuple[list[Run], list[Run]]:
    """Divide runs into two halves in turns, so that both have seen the same moods of the machine.

    Example:
        >>> runs = [Run(("p", 0, "a"), elapsed_s, 0.0, 0.0) for elapsed_s in (1.0, 2.0, 3.0)]
        >>> [[run.elapsed_s for run in half] for half in split(runs)]
        [[1.0, 3.0], [2.0]]
    """
    ordered = list(runs)
    return ordered[::2], ordered[1::2]


def _row(run: Run, cell: int) -> tuple[int, ...]:
    flags = _COLD * run.cold | _FAILED * run.failed | _HOGGED * run.hogged
    return cell, *(round(time_s * 1e6) for time_s in (run.elapsed_s, run.service_s, run.wait_s)), flags


def _run(keys: list[Key], cell: int, elapsed: int, service: int, wait: int, flags: int) -> Run:
    return Run(
        keys[cell],
        elapsed / 1e6,
        service / 1e6,
        wait / 1e6,
        bool(flags & _COLD),
        bool(flags & _FAILED),
        bool(flags & _HOGGED),
    )
