"""Profiles: which packages a Python zygote has loaded, and from where."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runvisor.policies.errors import ConfigError

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class PythonProfile:
    """Packages that are imported before a task arrives, and the environment they come from.

    Example:
        >>> PythonProfile("dates", packages=("zoneinfo",)).packages
        ('zoneinfo',)
    """

    name: str
    """Lower-case letters, digits and dashes."""
    packages: tuple[str, ...] = ()
    """Modules to import ahead, by dotted name. Each must be there, and must start no thread."""
    venv: str | Path | None = None
    """A virtual environment of the same Python version, whose packages come before those installed
    beside runvisor. It is shown to tasks, read-only. Its ``.pth`` files are not followed."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} is not a profile's name", "name", "use lower-case letters and dashes")
        if isinstance(self.packages, str):
            raise ConfigError("packages is one text, not a list of them", "packages", "write ('name',)")
        for package in self.packages:
            if not all(part.isidentifier() for part in package.split(".")):
                raise ConfigError(f"{package!r} is not the name of a module", "packages", "write what is imported")

    def site_packages(self) -> tuple[str, ...]:
        """Return the folders of the virtual environment that hold its packages.

        Raises:
            ConfigError: It is no virtual environment, or one of another Python version.
        """
        if self.venv is None:
            return ()
        venv = Path(self.venv).resolve()
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        folders = {(venv / lib / version / "site-packages").resolve() for lib in ("lib", "lib64")}
        found = tuple(sorted(str(folder) for folder in folders if folder.is_dir()))
        if not (venv / "pyvenv.cfg").is_file():
            raise ConfigError(f"{venv} is not a virtual environment", "venv", "make it with python -m venv")
        if not found:
            raise ConfigError(f"{venv} holds no packages for {version}", "venv", f"make it with {version} -m venv")
        return found

    def provides(self) -> frozenset[str]:
        """Return the names of the top-level packages that only this profile may have: its environment's."""
        entries = (entry for folder in self.site_packages() for entry in Path(folder).iterdir())
        names = {entry.name.partition(".")[0] for entry in entries if entry.is_dir() or entry.suffix in (".py", ".so")}
        return frozenset(name for name in names if name.isidentifier() and not name.startswith("_"))


BARE: Final = PythonProfile("bare")
SCIENCE: Final = PythonProfile(
    "science",
    (
        "numpy",
        "pandas",
        "sklearn.linear_model",
        "sklearn.ensemble",
        "sklearn.preprocessing",
        "sklearn.datasets",
        "sklearn.model_selection",
        "sklearn.metrics",
        "sklearn.cluster",
        "sklearn.decomposition",
        "sklearn.pipeline",
        "matplotlib.pyplot",
    ),
)
PROFILES: Final = {profile.name: profile for profile in (BARE, SCIENCE)}
"""The profiles that come with runvisor; what of their packages is not installed is left out."""


def all_profiles(default: str | PythonProfile, others: Iterable[PythonProfile]) -> dict[str, PythonProfile]:
    """Return the profiles that a task may name: those that come with runvisor, and the operator's.

    One of the operator's may take the name, and so the place, of one that comes with runvisor.

    Raises:
        ConfigError: Two of the operator's have one name.

    Example:
        >>> sorted(all_profiles("science", [PythonProfile("dates", ("zoneinfo",))]))
        ['bare', 'dates', 'science']
    """
    own: dict[str, PythonProfile] = {}
    for profile in (*([default] if isinstance(default, PythonProfile) else []), *others):
        if own.setdefault(profile.name, profile) != profile:
            raise ConfigError(f"two profiles are named {profile.name!r}", "python_profiles", "give them other names")
    return {**PROFILES, **own}


def elsewhere(own: PythonProfile, others: Iterable[PythonProfile]) -> dict[str, str]:
    """Return, by the name of a package, which other profile has it in its environment."""
    return {package: other.name for other in others if other.name != own.name for package in sorted(other.provides())}
