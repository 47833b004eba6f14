"""What is already known of programs: their layouts, and what they compiled to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final

import numpy as np

from runvisor.actors.ebpf.compiler import Artifact
from runvisor.policies.errors import EngineRefused
from runvisor.policies.records import RecordProgram, parse_program
from runvisor.policies.trust import Trust

_KEPT: Final = 512
_KEPT_CHARACTERS: Final = 4 * 1024 * 1024


class Known:
    """A parsed program, and its artifacts: what is checked for one trust level is not for another."""

    def __init__(self, program: RecordProgram) -> None:
        self.program = program
        self.artifacts: dict[Trust, Artifact] = {}
        self.refusals: dict[Trust, EngineRefused] = {}
        """Why the kernel cannot take it: found out once, said again."""


class Programs:
    """The programs that came lately, by source, record layout and whether they collect. Safe to use from many threads.

    It lives as long as one runtime, and so with one bcc and one kernel. An artifact
    depends on nothing but its key, so principals may share it: whoever holds the same
    text gets the same instructions.

    Args:
        kept: How many programs to keep.
        kept_characters: How much source text in all.
    """

    def __init__(self, kept: int = _KEPT, kept_characters: int = _KEPT_CHARACTERS) -> None:
        self._kept = kept
        self._kept_characters = kept_characters
        self._characters = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, np.dtype[Any], bool], Known] = OrderedDict()

    def find(self, source: str, dtype: np.dtype[Any], *, collects: bool = False) -> Known:
        """Return what is known of a program, parsing it if it is new.

        Raises:
            GuestSyntaxError: See `parse_program`.
            InvalidTask: See `parse_program`.
        """
        key = (source, dtype, collects)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        made = Known(parse_program(source, dtype, collects=collects))
        with self._lock:
            known = self._known.setdefault(key, made)
            self._characters += len(source) if known is made else 0
            while self._known and (len(self._known) > self._kept or self._characters > self._kept_characters):
                (oldest, *_), _ = self._known.popitem(last=False)
                self._characters -= len(oldest)
        return known
