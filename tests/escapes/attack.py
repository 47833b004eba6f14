"""One attack: a hostile program, and the one ending that our design gives it."""

from __future__ import annotations

import errno
import platform
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runvisor.policies.errors import GuestCrashed, LimitExceeded, RunvisorError, TimeLimitExceeded
from runvisor.policies.permissions import MiB
from runvisor.policies.result import Result

ATTACKS: Final = Path(__file__).parent / "attacks"
_LANGUAGES: Final = {"py": "python", "js": "javascript"}
_HEADER: Final = re.compile(r"(?:#|//) ([A-Z]+): (.*)")
_WITHOUT: Final = re.compile(r"^(?:#|//) WITHOUT ([^:]+): ([^;]+); (.+)$", re.MULTILINE)
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_UNITS: Final = {"MiB": MiB}


@dataclass(frozen=True, slots=True)
class Otherwise:
    """Another ending of an attack, and why it is right."""

    layer: str
    """The layer that is missing."""
    ends: str
    why: str


@dataclass(frozen=True, slots=True)
class Attack:
    """A hostile program and what is to come of it.

    Attributes:
        ends: The ending, as `ending_of` spells it.
        finding: Why it is known to end otherwise today; empty if it does not.
        only: The one machine type that it is written for; empty for all.
        without: Its other endings, where a layer is missing.
    """

    name: str
    language: str
    code: str
    ends: str
    permissions: dict[str, Any] = field(default_factory=dict)
    finding: str = ""
    only: str = ""
    without: tuple[Otherwise, ...] = ()

    def ends_within(self, layers: Collection[str]) -> str:
        """Return its ending where these layers are in force; the first that is missing and matters decides."""
        return next((other.ends for other in self.without if other.layer not in layers), self.ends)

    @property
    def is_foreign(self) -> bool:
        """Whether it is written for another machine than this one."""
        return bool(self.only) and self.only != platform.machine()


def own_attacks(folder: str) -> list[Attack]:
    """Read our own attacks in one language; files that begin with an underscore are what all of them need.

    The comment at the head of a file says ``ENDS: ending``, and if need be
    ``WITH: permission=value ...``, ``ONLY: machine`` and ``FINDING: reason``.
    Where it ends otherwise for want of a layer, it says
    ``WITHOUT layer: ending; why that is right``.
    Python ones are named ``.py.txt``, lest a tool that collects modules runs
    them on the host.
    """
    prelude = "".join(path.read_text() for path in sorted((ATTACKS / folder).glob("_*")))
    files = sorted(path for path in (ATTACKS / folder).iterdir() if path.name[0] not in "_.")
    return [_read(path, prelude, _LANGUAGES[folder]) for path in files]


def _read(path: Path, prelude: str, language: str) -> Attack:
    code = path.read_text()
    headers = filter(None, map(_HEADER.fullmatch, code.splitlines()))
    said = {match[1]: match[2] for match in headers}
    return Attack(
        name=name_of(path),
        language=language,
        code=prelude + code,
        ends=said["ENDS"],
        permissions={"timeout_s": 5.0, **dict(_permission(item) for item in said.get("WITH", "").split())},
        finding=said.get("FINDING", ""),
        only=said.get("ONLY", ""),
        without=tuple(Otherwise(*found) for found in _WITHOUT.findall(code)),
    )


def name_of(path: Path) -> str:
    """Return a file's name without its suffixes."""
    return path.name.partition(".")[0]


def _permission(item: str) -> tuple[str, float]:
    name, _, value = item.partition("=")
    unit = next((unit for unit in _UNITS if value.endswith(unit)), "")
    return name, float(value) if not unit else int(value.removesuffix(unit)) * _UNITS[unit]


def ending_of(result: Result) -> str:
    """Say in one line how an execution ended.

    ``escaped WHAT``, ``denied REASON ...`` (what it printed), ``timeout``,
    ``limit PERMISSION``, ``killed SIGNAL`` (or ``system call``, ``broke off``),
    ``error TYPE``, or ``ok``.
    """
    lines = [line for line in result.stdout.splitlines() if line.startswith(("DENIED", "ESCAPED"))]
    if isinstance(result.value, str) and result.value.startswith(("DENIED", "ESCAPED")):
        lines += result.value.splitlines()
    escaped = next((line for line in lines if line.startswith("ESCAPED")), None)
    if escaped is not None:
        return f"escaped {escaped[8:]}".rstrip()
    if result.error is not None:
        return _failure(result.error)
    reasons = list(dict.fromkeys(_reason(line) for line in lines))
    return " ".join(["denied", *filter(None, reasons)]) if lines else "ok"


def _reason(line: str) -> str:
    number = _ERRNO.search(line)
    if number is not None:
        return errno.errorcode[int(number[1])]
    words = line.split()
    return words[1] if len(words) > 1 and words[1].isidentifier() else ""


def _failure(error: RunvisorError) -> str:
    if isinstance(error, TimeLimitExceeded):
        return "timeout"
    if isinstance(error, LimitExceeded):
        return f"limit {error.where}"
    if isinstance(error, GuestCrashed):
        name = re.search(r"\bSIG[A-Z]+\b|system call|broke off", error.what)
        return f"killed {name[0] if name else error.what}"
    return f"error {type(error).__name__}"
