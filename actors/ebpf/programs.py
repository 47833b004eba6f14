"""What is already known of programs: their layouts, and what they compiled to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, Final

import numpy as np

from runvisor.actors.ebpf.compiler import Artifact
from runvisor.policies.records import RecordProgram, parse_program
from runvisor.policies.trust import Trust

_KEPT: Final = 512
_KEPT_CHARACTERS: Final = 4 * 1024 * 1024
_WIDEST_INTEGER: Final = 9
_WIDEST_FRAME: Final = 32
"""More than what msgpack writes around the fields of a map, a name or a list."""


class Known:
    """A parsed program, and its artifacts: what is checked for one trust level is not for another."""

    def __init__(self, program: RecordProgram) -> None:
        self.program = program
        self.artifacts: dict[Trust, Artifact] = {}
        members = program.state.members if program.state else ()
        fields = sum(_WIDEST_FRAME + len(member.name) + _WIDEST_INTEGER * (member.count or 1) for member in members)
        self.widest_value = 2 * _WIDEST_FRAME + fields
        """No value of the program takes more bytes than this on the wire."""
        self.narrowest_value = sum(member.count or 1 for member in members)
        """And none takes fewer: an integer takes a byte."""


class Programs:
    """The programs that came lately, by source and record layout. Safe to use from many threads.

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
        self._known: OrderedDict[tuple[str, np.dtype[Any]], Known] = OrderedDict()

    def find(self, source: str, dtype: np.dtype[Any]) -> Known:
        """Return what is known of a program, parsing it if it is new.

        Raises:
            GuestSyntaxError: See `parse_program`.
            InvalidTask: See `parse_program`.
        """
        key = (source, dtype)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        made = Known(parse_program(source, dtype))
        with self._lock:
            known = self._known.setdefault(key, made)
            self._characters += len(source) if known is made else 0
            while self._known and (len(self._known) > self._kept or self._characters > self._kept_characters):
                (oldest, _), _ = self._known.popitem(last=False)
                self._characters -= len(oldest)
        return known
