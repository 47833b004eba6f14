"""Front matter: the optional YAML mapping between ``---`` lines at the top of a plan."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from runvisor.policies.errors import InvalidPlan, RunvisorError
from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import Trust

KEYS: Final = ("title", "trust", "permissions")
MAX_CHARACTERS: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What a plan says of itself as a whole."""

    title: str = ""
    trust: Trust | None = None
    permissions: Permissions | None = None
    lines: int = 0
    """Lines it takes up, marks included."""


def read_front_matter(lines: list[str]) -> FrontMatter:
    """Read the front matter, if the text starts with one.

    A first line of ``---`` with no second one after it is a rule, not front matter.

    Args:
        lines: The plan's lines, without their ends.

    Raises:
        InvalidPlan: It is not a YAML mapping of the known keys; names the line.
    """
    if not lines or lines[0].rstrip() != "---":
        return FrontMatter()
    end = next((number for number, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        return FrontMatter()
    text = "\n".join(lines[1:end])
    if len(text) > MAX_CHARACTERS:
        raise InvalidPlan(f"the front matter is longer than {MAX_CHARACTERS} characters", "line 1")
    data = _load(text)
    try:
        trust = Trust.parse(data["trust"]) if data.get("trust") is not None else None
        permissions = _permissions(data.get("permissions"))
    except RunvisorError as error:
        raise InvalidPlan(f"front matter: {error.what}", _place(error, lines[:end]), error.remedy) from None
    return FrontMatter(str(data.get("title") or "").strip(), trust, permissions, end + 1)


def _load(text: str) -> Mapping[str, Any]:
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):  # a few lines of them stand for gigabytes
                raise InvalidPlan("aliases are not allowed in the front matter", _at(event.start_mark))
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise InvalidPlan(f"the front matter is not YAML: {error.problem}", _at(error.problem_mark)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidPlan(f"the front matter is not YAML: {type(error).__name__}", "line 2") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InvalidPlan("the front matter is not a mapping", "line 2", f"write {', '.join(KEYS)} with values")
    for key in data:
        if key not in KEYS:
            raise InvalidPlan(
                f"unknown key {str(key)[:40]!r} in the front matter", "line 1", f"known: {', '.join(KEYS)}"
            )
    return data


def _at(mark: Any) -> str:
    """Return ``line:column`` in the plan; the YAML starts in its second line."""
    return f"{mark.line + 2}:{mark.column + 1}" if mark is not None else "line 2"


def _permissions(data: object) -> Permissions | None:
    if data is None:
        return None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise InvalidPlan("permissions is not a mapping", "permissions")
    return Permissions.from_dict(data)


def _place(error: RunvisorError, lines: list[str]) -> str:
    """Find the line of the key that an error names."""
    for key in reversed(re.findall(r"\w+", error.where)):
        named = re.compile(rf"\b{key}\b")
        for number, line in enumerate(lines, 1):
            if named.search(line):
                return f"line {number}"
    return "line 1"
