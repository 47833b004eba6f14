"""What a toolchain tells about itself, so that any compiler can be run in the same jail and be asked the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from runvisor.policies.errors import ConfigError, GuestSyntaxError
from runvisor.policies.permissions import GiB, KiB, MiB

_MAX_LOG: Final = 8 * KiB


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a language cannot be compiled here."""

    what: str
    """What is missing."""
    remedy: str
    """One command that gets it."""

    def sentence(self, display: str) -> str:
        """Say it in one line.

        Example:
            >>> Lack("the compiler in a package", "pip install it").sentence("C")
            'C needs the compiler in a package: pip install it'
        """
        return f"{display} needs {self.what}: {self.remedy}"


@dataclass(frozen=True, slots=True)
class CompileBounds:
    """What one compile may take; then its process is killed."""

    timeout_s: float = 20.0
    memory_bytes: int = 1 * GiB
    """Of all its processes together, files in the scratch included."""
    scratch_bytes: int = 128 * MiB


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a recipe finds in its jail."""

    recipe: str
    """The module of this package that runs there."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Plain data for the recipe, mostly paths."""
    readable: tuple[str, ...] = ()
    """Folders shown read-only, beside the system's and the interpreter's."""


class Toolchain(Protocol):
    """One language's compiler as this machine has it."""

    @property
    def language(self) -> str:
        """Its canonical name."""
        ...

    @property
    def bounds(self) -> CompileBounds:
        """What one compile may take."""
        ...

    def probe(self) -> Lack | None:
        """Return what is missing, or None if it can compile."""
        ...

    def identity(self) -> str:
        """Return what tells this version of the tools from every other. Called only where nothing is missing."""
        ...

    def workplace(self) -> Workplace:
        """Return what the recipe needs, building the prebuilt libraries first where they are missing."""
        ...

    def explain(self, log: str) -> GuestSyntaxError:
        """Make an error of what the tools say."""
        ...


def require(toolchain: Toolchain, display: str) -> None:
    """Refuse a language whose toolchain is missing.

    Raises:
        ConfigError: Says what is missing and how to get it.
    """
    lack = toolchain.probe()
    if lack is not None:
        raise ConfigError(f"{display} needs {lack.what}", "wasm", lack.remedy)


def explain(log: str, source: str, patterns: Sequence[re.Pattern[str]]) -> GuestSyntaxError:
    r"""Make an error of the first message in a log; the whole of it goes to the details.

    Args:
        log: What the tools said.
        source: The name under which they saw the program.
        patterns: Tried in turn; group ``what`` is the message, ``file`` and ``place`` (line:column) where it is.

    Example:
        >>> pattern = re.compile(r"^(?P<file>.*?):(?P<place>\d+:\d+): error: (?P<what>.*)$", re.MULTILINE)
        >>> error = explain("program.c:2:9: error: expected expression", "program.c", [pattern])
        >>> error.what, error.where
        ('expected expression', '2:9')
    """
    log = log[:_MAX_LOG]
    details = {"log": log}
    for pattern in patterns:
        match = pattern.search(log)
        if match is None:
            continue
        found = match.groupdict()
        if "place" not in found:
            return GuestSyntaxError(found["what"], "link", "", details)
        where = found["place"] if found["file"] == source else f"{found['file']}:{found['place']}"
        return GuestSyntaxError(found["what"], where, "", details)
    lines = log.strip().splitlines()
    return GuestSyntaxError(lines[-1] if lines else "it does not compile", "", "", details)
