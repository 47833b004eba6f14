"""What the kernel counted of an execution: the layout of its counters, and their reading.

Programs at the end of each system call add to an account of 64-bit
counters; see docs/witness.md. Nothing here asks the kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runvisor.policies.errors import ProtocolError
from runvisor.policies.values import is_number

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]

CALLS: Final = 513
"""Rows of each table: one per number of a system call, and a last one for all numbers from 512."""
FILTER: Final = 0
"""The first word of an account: the number of the filter that binds the sandbox, or 0 if none does."""
TOTALS: Final = ("read_bytes", "written_bytes", "cpu_ns", "switches")
REFUSED: Final = ("EPERM", "ENOSYS")
"""The answers of our seccomp filters."""
DENIED: Final = ("EPERM", "EACCES", "EROFS")
"""The answers by which the kernel itself says no: capabilities, Landlock and file modes, a read-only root."""
_TOTALS_AT: Final = FILTER + 1
TABLES_AT: Final = _TOTALS_AT + len(TOTALS)
"""Where the first table begins: the calls that were carried out."""
WORDS: Final = TABLES_AT + CALLS * (1 + len(REFUSED) + len(DENIED))
ACCOUNT_BYTES: Final = WORDS * 8
OTHER: Final = "other"
"""The name of the last row."""
_MAX_ROWS: Final = CALLS * (len(REFUSED) + len(DENIED))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What an execution tried and was not let do."""

    call: str
    """The system call's name."""
    error: str
    """What it was answered, by the name of its errno."""
    count: int


@dataclass(frozen=True, slots=True)
class KernelUsage:
    """What the kernel counted of one execution, from its task to its answer.

    The guest can neither see nor change the counters. Memory that it maps and
    what goes through io_uring (which our filters refuse) are not in the bytes.
    """

    syscalls: int = 0
    """System calls that were carried out and have ended, whatever their answer."""
    cpu_s: float = 0.0
    """Time on a core, in all threads. Of a thread that still runs, up to its last switch or write."""
    switches: int = 0
    """How often one of its threads left a core."""
    read_bytes: int = 0
    """By read, recv, copy_file_range and the like; pipes and sockets count like files."""
    written_bytes: int = 0
    """By write, send, copy_file_range and the like."""
    calls: tuple[tuple[str, int], ...] = ()
    """How often each system call was carried out, the most frequent first."""
    refused: tuple[Attempt, ...] = ()
    """What the seccomp filter stopped before the kernel looked at it."""
    denied: tuple[Attempt, ...] = ()
    """What the kernel looked at and did not permit."""

    @property
    def denials(self) -> int:
        """All attempts that came to nothing, refused and denied."""
        return sum(attempt.count for attempt in (*self.refused, *self.denied))

    def to_wire(self) -> dict[str, Any]:
        """Return plain data for a frame."""
        return {
            "syscalls": self.syscalls,
            "cpu_s": self.cpu_s,
            "switches": self.switches,
            "read_bytes": self.read_bytes,
            "written_bytes": self.written_bytes,
            "calls": [[name, count] for name, count in self.calls],
            "refused": [[a.call, a.error, a.count] for a in self.refused],
            "denied": [[a.call, a.error, a.count] for a in self.denied],
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> KernelUsage:
        """Rebuild it.

        Raises:
            ProtocolError: It is no such data.

        Example:
            >>> usage = KernelUsage(syscalls=2, calls=(("read", 2),), refused=(Attempt("reboot", "EPERM", 1),))
            >>> KernelUsage.from_wire(usage.to_wire()) == usage
            True
        """
        try:
            totals = {name: data[name] for name in ("syscalls", "cpu_s", "switches", "read_bytes", "written_bytes")}
            calls = tuple((str(name), _count(number)) for name, number in _rows(data["calls"]))
            if not all(is_number(total) and total >= 0 for total in totals.values()):
                raise ValueError("a total is no count")
            return cls(**totals, calls=calls, refused=_attempts(data["refused"]), denied=_attempts(data["denied"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"not what a kernel counted: {type(error).__name__}: {error}") from None

    def summary(self) -> dict[str, Any]:
        """Return what the audit log says of it: every attempt, and no list of calls.

        Example:
            >>> KernelUsage(syscalls=9, refused=(Attempt("ptrace", "EPERM", 2),)).summary()["refused"]
            {'ptrace EPERM': 2}
        """
        plain = self.to_wire()
        del plain["calls"]
        plain["refused"] = {f"{a.call} {a.error}": a.count for a in self.refused}
        plain["denied"] = {f"{a.call} {a.error}": a.count for a in self.denied}
        return plain


def read_words(words: Words, names: Mapping[int, str]) -> KernelUsage:
    """Return what an account's counters say, or the difference of two readings of one account.

    Args:
        words: The counters, ``WORDS`` of them.
        names: System calls by number; a number that is missing stands for itself.

    Example:
        >>> import numpy as np
        >>> words = np.zeros(WORDS, np.uint64)
        >>> words[1], words[TABLES_AT + 1], words[TABLES_AT + CALLS + 41] = 7, 2, 3
        >>> usage = read_words(words, {1: "write", 41: "socket"})
        >>> usage.read_bytes, usage.calls, usage.refused
        (7, (('write', 2),), (Attempt(call='socket', error='EPERM', count=3),))
    """
    totals = dict(zip(TOTALS, words[_TOTALS_AT:TABLES_AT].tolist(), strict=True))
    tables: list[list[tuple[str, int]]] = [[] for _ in range(1 + len(REFUSED) + len(DENIED))]
    table = words[TABLES_AT:]
    for at in table.nonzero()[0].tolist():
        number, row = divmod(at, CALLS)
        name = OTHER if row == CALLS - 1 else names.get(row, f"call {row}")
        tables[number].append((name, int(table[at])))
    calls, refused, denied = tables[0], tables[1 : 1 + len(REFUSED)], tables[1 + len(REFUSED) :]
    return KernelUsage(
        syscalls=sum(count for _, count in calls),
        cpu_s=totals["cpu_ns"] / 1e9,
        switches=totals["switches"],
        read_bytes=totals["read_bytes"],
        written_bytes=totals["written_bytes"],
        calls=tuple(sorted(calls, key=lambda row: (-row[1], row[0]))),
        refused=_by_count(refused, REFUSED),
        denied=_by_count(denied, DENIED),
    )


def _by_count(tables: Sequence[Sequence[tuple[str, int]]], errors: tuple[str, ...]) -> tuple[Attempt, ...]:
    found = [Attempt(call, error, count) for table, error in zip(tables, errors, strict=True) for call, count in table]
    return tuple(sorted(found, key=lambda attempt: (-attempt.count, attempt.call, attempt.error)))


def _attempts(data: Any) -> tuple[Attempt, ...]:
    return tuple(Attempt(str(call), str(error), _count(count)) for call, error, count in _rows(data))


def _rows(data: Any) -> Any:
    if not isinstance(data, list | tuple) or len(data) > _MAX_ROWS:
        raise TypeError("no list of rows")
    return data


def _count(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise TypeError("no count")
    return number
