"""From what a caller writes to a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from runvisor.policies.language import detect, resolve
from runvisor.policies.permissions import Permissions
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.task import Task
from runvisor.policies.trust import Trust
from runvisor.policies.values import Value

AUTO: Final = "auto"
_NONE_ASKED: Final = Permissions()
_KEPT_CODE: Final = 16 * 1024
"""What language longer programs are in is found out each time: keeping that would keep them."""


def make_task(
    code: str | bytes,
    language: str,
    *,
    inputs: Value = None,
    permissions: Permissions | Mapping[str, Any] | None = None,
    trust: Trust | str = Trust.UNTRUSTED,
    label: str = "",
    files: Mapping[str, bytes] | None = None,
    profile: str = "",
    objective: Objective | str | None = None,
    critical: bool = False,
) -> tuple[Task, str]:
    """Make a task of what a caller gives, and say how its language was found out.

    Relative file patterns are made absolute here, since only the caller's
    process knows from where they are meant.

    Raises:
        ConfigError: It is malformed, or its language is unknown.
    """
    if not isinstance(permissions, Permissions):
        permissions = Permissions.from_dict(permissions) if permissions else _NONE_ASKED
    folder = ""
    if permissions.filesystem.is_relative:
        folder = str(Path.cwd())
        permissions = replace(permissions, filesystem=permissions.filesystem.anchored(folder))
    language, reason = language_of(code, language)
    wanted, level = read_objective(objective), Trust.parse(trust)
    task = Task(code, language, inputs, permissions, level, label, files or {}, folder, profile, wanted, critical)
    return task, reason


def language_of(code: str | bytes, language: str) -> tuple[str, str]:
    """Return the language of some code by its own name, and how it was found out if nobody said it.

    Args:
        code: The code.
        language: A name of the language, or ``auto``.

    Raises:
        ConfigError: The language is unknown.

    Example:
        >>> language_of("print(1)", "py"), language_of("#!/usr/bin/env node", "auto")[0]
        (('python', ''), 'javascript')
    """
    if language != AUTO:
        return resolve(language), ""
    is_kept = isinstance(code, str | bytes) and len(code) <= _KEPT_CODE
    guess = _detected(code) if is_kept else detect(code)
    return guess.language, f"Language {guess.language}: {guess.reason}."


def read_objective(objective: Objective | str | None) -> Objective | None:
    """Return what a caller means by an objective; None is that the caller has none.

    Raises:
        ConfigError: It is none.
    """
    if objective is None or isinstance(objective, Objective):
        return objective
    return _parsed(objective) if isinstance(objective, str) else Objective.parse(objective)


_parsed = lru_cache(64)(Objective.parse)
_detected = lru_cache(512)(detect)
