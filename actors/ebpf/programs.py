"""What is already known of programs: their layouts, and what they compiled to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final, Generic, TypeVar

import numpy as np

from runvisor.actors.ebpf.compiler import Artifact
from runvisor.actors.ebpf.packets.work import PacketArtifact
from runvisor.policies import packet_programs
from runvisor.policies.errors import EngineRefused
from runvisor.policies.packet_programs import PacketProgram
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


T = TypeVar("T")


class Kept(Generic[T]):
    """What came lately, by source text and something beside it. Safe to use from many threads.

    Args:
        kept: How many to keep.
        kept_characters: How much source text in all.
    """

    def __init__(self, kept: int = _KEPT, kept_characters: int = _KEPT_CHARACTERS) -> None:
        self._kept = kept
        self._kept_characters = kept_characters
        self._characters = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, Hashable], T] = OrderedDict()

    def get(self, source: str, beside: Hashable, make: Callable[[], T]) -> T:
        """Return what is known of a text, making it if it is new."""
        key = (source, beside)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        made = make()
        with self._lock:
            known = self._known.setdefault(key, made)
            self._characters += len(source) if known is made else 0
            while self._known and (len(self._known) > self._kept or self._characters > self._kept_characters):
                (oldest, _), _ = self._known.popitem(last=False)
                self._characters -= len(oldest)
        return known


class Programs(Kept[Known]):
    """The record programs that came lately, by source, record layout and whether they collect.

    It lives as long as one runtime, and so with one bcc and one kernel. An artifact
    depends on nothing but its key, so principals may share it: whoever holds the same
    text gets the same instructions.
    """

    def find(self, source: str, dtype: np.dtype[Any], *, collects: bool = False) -> Known:
        """Return what is known of a program, parsing it if it is new.

        Raises:
            GuestSyntaxError: See `parse_program`.
            InvalidTask: See `parse_program`.
        """
        return self.get(source, (dtype, collects), lambda: Known(parse_program(source, dtype, collects=collects)))


class KnownPackets:
    """A parsed packet program, and its artifacts by trust level."""

    def __init__(self, program: PacketProgram) -> None:
        self.program = program
        self.artifacts: dict[Trust, PacketArtifact] = {}


class PacketPrograms(Kept[KnownPackets]):
    """The packet programs that came lately, by source."""

    def find(self, source: str) -> KnownPackets:
        """Return what is known of a program, parsing it if it is new.

        Raises:
            GuestSyntaxError: See `runvisor.policies.packet_programs.parse_program`.
        """
        return self.get(source, None, lambda: KnownPackets(packet_programs.parse_program(source)))
