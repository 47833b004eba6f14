r"""The info string of a fence: a language, then ``name=value`` attributes.

A value is bare (no spaces or quotes in it) or quoted with ``"`` or ``'``; within
quotes a backslash keeps the character after it. Lists are separated by commas.

Example:
    >>> info = parse_info("python id=clean needs=load,fetch timeout=5s", line=3, column=4)
    >>> info.language, [(a.name, a.text, a.column) for a in info.attributes]
    ('python', [('id', 'clean', 14), ('needs', 'load,fetch', 26), ('timeout', '5s', 45)])
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from runvisor.policies.errors import InvalidPlan, RunvisorError
from runvisor.policies.permissions import Filesystem, Network, Permissions
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.trust import Trust
from runvisor.supervisor.plan.references import Reference

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<name>[^\s="']+)=(?P<value>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"']*)|(?P<word>[^\s="']+))(?=\s|$)"""
)
_ESCAPE: Final = re.compile(r"\\(.)")
_TIME: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|min)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, None: 1.0}


@dataclass(frozen=True, slots=True)
class Attribute:
    """One ``name=value``, and where it stands."""

    name: str
    text: str
    line: int
    column: int
    """Of the value, from 1."""

    def wrong(self, what: str, remedy: str = "") -> InvalidPlan:
        """Return an error that points at this attribute."""
        details = {"attribute": self.name, "line": self.line, "column": self.column}
        return InvalidPlan(f"{self.name}: {what}", f"{self.line}:{self.column}", remedy, details)


@dataclass(frozen=True, slots=True)
class Info:
    """What a fence says of itself."""

    language: str
    """As written; empty when the fence starts with an attribute or says nothing."""
    attributes: tuple[Attribute, ...]


def parse_info(text: str, *, line: int, column: int) -> Info:
    """Split an info string; says nothing of what the names mean.

    Args:
        text: What follows the fence's marks on its line.
        line: The line, from 1.
        column: Where ``text`` starts in it, from 1.

    Raises:
        InvalidPlan: The text is not a language and attributes, or an attribute comes twice.
    """
    language, found, position = "", dict[str, Attribute](), 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            start = column + position + len(text[position:]) - len(text[position:].lstrip())
            raise InvalidPlan(
                f"cannot read {text[position:].strip()[:40]!r}",
                f"{line}:{start}",
                "write name=value, or quote the value",
            )
        if (word := match["word"]) is not None:
            if position:
                raise InvalidPlan(
                    f"{word[:40]!r} has no value", f"{line}:{column + match.start('word')}", f"write {word[:40]}=value"
                )
            language = word
        else:
            attribute = Attribute(match["name"], _unquoted(match["value"]), line, column + match.start("value"))
            if attribute.name in found:
                raise attribute.wrong("it is given twice", "keep one")
            found[attribute.name] = attribute
        position = match.end()
    return Info(language, tuple(found.values()))


def quote(text: str) -> str:
    """Return the text as an attribute's value that `parse_info` reads back.

    Example:
        >>> quote("load"), quote("two words")
        ('load', '"two words"')
    """
    if text and not re.search(r"[\s\"'\\]", text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


def read_attributes(attributes: tuple[Attribute, ...], ceiling: Permissions | None) -> dict[str, Any]:
    """Return the fields of a `Step` that the attributes set.

    A limit that no attribute sets is the default of `Permissions`, or the
    plan's ceiling where that is lower.

    Raises:
        InvalidPlan: An unknown attribute or a value it does not take; names line and column.
    """
    fields: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for attribute in attributes:
        known = _READERS.get(attribute.name)
        if known is None:
            raise _unknown(attribute)
        try:
            target, value = known.field, known.read(attribute.text)
        except RunvisorError as error:
            raise attribute.wrong(error.what, error.remedy or known.takes) from None
        except ValueError:
            raise attribute.wrong(f"it cannot be {attribute.text[:60]!r}", known.takes) from None
        (limits if known.is_permission else fields)[target] = value
        if known.is_permission:
            _check_permission(attribute, target, value)
    base = Permissions() if ceiling is None else Permissions().narrowed_to(ceiling)
    fields["permissions"] = replace(base, **_merged(limits))
    return fields


def _check_permission(attribute: Attribute, name: str, value: object) -> None:
    """Build the permission alone, so that its error can point at the attribute."""
    try:
        Permissions(**_merged({name: value}))
    except RunvisorError as error:
        raise attribute.wrong(error.what, error.remedy) from None


def _merged(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Put ``read`` and ``write`` together as one filesystem."""
    merged = {name: value for name, value in limits.items() if name not in ("read", "write")}
    if len(merged) < len(limits):
        merged["filesystem"] = Filesystem(limits.get("read", ()), limits.get("write", ()))
    if "network" in merged:
        merged["network"] = Network(merged["network"])
    return merged


def _unknown(attribute: Attribute) -> InvalidPlan:
    near = difflib.get_close_matches(attribute.name, _READERS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    start = attribute.column - len(attribute.name) - 1
    return InvalidPlan(
        f"unknown attribute {attribute.name[:40]!r}",
        f"{attribute.line}:{start}",
        f"{hint}known: {', '.join(sorted(_READERS))}",
        {"attribute": attribute.name[:40], "line": attribute.line, "column": start},
    )


def _unquoted(text: str) -> str:
    if text[:1] in ("'", '"') and text:
        return _ESCAPE.sub(r"\1", text[1:-1])
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ValueError(text)
    return names


def _time(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]) * _SECONDS[match[2]]


def _inputs(text: str) -> Mapping[str, Any] | Reference:
    if not text.lstrip().startswith("{"):
        return Reference.parse(text)
    try:
        inputs = json.loads(text)
    except RecursionError:
        raise ValueError(text) from None
    assert isinstance(inputs, dict)  # JSON that starts with a brace
    return inputs


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _count(text: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def _bytes(text: str) -> int:
    """Read ``128MB`` as `Permissions.from_dict` does."""
    return Permissions.from_dict({"memory": {"limit": _count(text) if text.isdecimal() else text}}).memory_bytes


@dataclass(frozen=True, slots=True)
class _Reader:
    field: str
    read: Callable[[str], Any]
    takes: str
    is_permission: bool = False


_SIZE_TEXT: Final = "write a size such as 128MB"
_TIME_TEXT: Final = "write seconds, or a time such as 500ms, 5s or 2min"
_COUNT_TEXT: Final = "write a whole number"
_LIST_TEXT: Final = "write names with commas between them"

_READERS: Final[Mapping[str, _Reader]] = {
    "id": _Reader("id", str, "write a name"),
    "needs": _Reader("needs", _names, "write ids of steps with commas between them"),
    "title": _Reader("title", str, "write text"),
    "trust": _Reader("trust", Trust.parse, "write untrusted, verified or trusted"),
    "objective": _Reader("objective", Objective.parse, 'write an objective in quotes, such as "slo 100ms"'),
    "critical": _Reader("critical", _truth, "write true or false"),
    "retries": _Reader("retries", _count, _COUNT_TEXT),
    "for_each": _Reader("for_each", Reference.parse, "write steps.ID.value"),
    "max_parallel": _Reader("max_parallel", _count, _COUNT_TEXT),
    "inputs": _Reader("inputs", _inputs, "write a step's id, item, or a JSON object in quotes"),
    "timeout": _Reader("timeout_s", _time, _TIME_TEXT, is_permission=True),
    "cpu": _Reader("cpu_s", _time, _TIME_TEXT, is_permission=True),
    "memory": _Reader("memory_bytes", _bytes, _SIZE_TEXT, is_permission=True),
    "stack": _Reader("stack_bytes", _bytes, _SIZE_TEXT, is_permission=True),
    "output": _Reader("output_bytes", _bytes, _SIZE_TEXT, is_permission=True),
    "disk": _Reader("disk_bytes", _bytes, _SIZE_TEXT, is_permission=True),
    "instructions": _Reader("instructions", _count, _COUNT_TEXT, is_permission=True),
    "processes": _Reader("processes", _count, _COUNT_TEXT, is_permission=True),
    "network": _Reader("network", _names, "write hosts with commas between them", is_permission=True),
    "read": _Reader("read", _names, "write globs with commas between them", is_permission=True),
    "write": _Reader("write", _names, "write globs with commas between them", is_permission=True),
    "tools": _Reader("tools", _names, _LIST_TEXT, is_permission=True),
}

ATTRIBUTES: Final = tuple(sorted(_READERS))
"""Every attribute a fence may carry."""
