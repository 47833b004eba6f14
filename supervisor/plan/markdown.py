"""Markdown to plan: an agent's own reply, with steps as fenced code.

What counts as a step:

- A fence in a language runvisor runs (or an alias: ``py``, ``js`` ...), or
  ``auto``, or one that starts with an attribute (its language is then found out).
- A fence with no info, or in a language of text (``text``, ``output``, ``json``,
  ``console`` ...), is something to read. Attributes on it are an error: whoever
  wrote them meant it to run.
- A fence in any other language is an error: left out in silence, the plan would
  do less than it says. Mark it ``text`` if it is only to be read.
- A fence inside a block quote is a quotation, and indented code is text.
- A fence that is never closed is an error: the reply was cut off, and half a
  step is not to be run.

A step without ``id`` is called after the nearest heading or list item before it
(after the list item around it, if there is one), or ``step_N``.

The parser is markdown-it-py (CommonMark 0.31, https://spec.commonmark.org/0.31.2/)
with only its block rules on: the inline rules take quadratic time on hostile text.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from runvisor.policies.errors import InvalidPlan, UnknownLanguage
from runvisor.policies.language import resolve
from runvisor.supervisor.plan.attributes import Info, parse_info, read_attributes
from runvisor.supervisor.plan.frontmatter import FrontMatter, read_front_matter
from runvisor.supervisor.plan.model import AUTO, RESERVED_IDS, STEP_LANGUAGES, Plan, Step
from runvisor.supervisor.plan.references import Reference

MAX_CHARACTERS: Final = 8 * 1024 * 1024

TEXT_LANGUAGES: Final = frozenset(
    "text txt plain plaintext output console log json jsonc yaml yml toml ini csv tsv xml html css svg "
    "markdown md diff patch mermaid dot latex tex math http".split()
)
"""Info words of fences that are to be read, not run."""

_MARKS: Final = re.compile(r"[*_`~\[\]]+|\((?:https?:|#)[^)]{0,500}\)|<[^>]{0,500}>")
_NUMBERING: Final = re.compile(r"^(?:step\s*)?\d+(?:\.\d+)*\s*[.):–—-]*\s*(?=\S)", re.IGNORECASE)
_TITLE_END: Final = re.compile(r":(?:\s|$)|\.\s|\s[–—-]\s|\n")
_MAX_SLUG: Final = 40
_MAX_LABEL: Final = 2000
_MAX_NESTING: Final = 100


def parse_plan(text: str) -> Plan:
    r"""Read a plan from Markdown.

    Args:
        text: The whole reply, front matter included.

    Raises:
        InvalidPlan: It is not a plan; ``where`` is ``line:column`` or names the step and its line.
        CapabilityDenied: A step asks for more than the front matter allows.
        TrustViolation: A step claims more trust than the front matter allows.

    Example:
        >>> plan = parse_plan("# Sum\n\n1. Load\n\n   ```py\n   [1, 2]\n   ```\n\n"
        ...                   "2. Total\n\n   ```js timeout=500ms\n   inputs.load[0]\n   ```\n")
        >>> [(step.id, step.language, step.line, step.timeout_s) for step in plan.steps]
        [('load', 'python', 6, 10.0), ('total', 'javascript', 12, 0.5)]
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidPlan(f"the plan is longer than {MAX_CHARACTERS} characters", "", "pass data as inputs")
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    front = read_front_matter(lines)
    lines[: front.lines] = [""] * front.lines
    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).disable(["inline", "reference"])
    reader = _Reader(lines, front)
    for token in parser.parse("\n".join(lines) + "\n"):
        reader.take(token)
    return Plan(front.title or reader.heading or "plan", reader.steps(), front.permissions, front.trust)


@dataclass(slots=True)
class _Reader:
    """Walks the blocks in order and keeps what names the next step."""

    lines: Sequence[str]
    front: FrontMatter
    drafts: list[dict[str, Any]] = field(default_factory=list)
    """The fields of the steps found so far; those that name themselves have an ``id``."""
    heading: str = ""
    """The first heading, which is the plan's title."""
    label: str = ""
    paragraph: str = ""
    items: list[str] = field(default_factory=list)
    """Texts of the list items around this place, outermost first."""
    quotes: int = 0
    opened: str = ""

    def take(self, token: Token) -> None:
        match token.type:
            case "blockquote_open":
                self.quotes += 1
            case "blockquote_close":
                self.quotes -= 1
            case "list_item_open":
                self.items.append("")
            case "list_item_close":
                self.items.pop()
            case "heading_open" | "paragraph_open":
                self.opened = token.type
            case "inline" if not self.quotes:
                self._take_text(token.content)
            case "fence" if not self.quotes:
                self._take_fence(token)

    def _take_text(self, text: str) -> None:
        text = text[:_MAX_LABEL]
        title = _title(text)
        if self.opened == "heading_open":
            self.heading = self.heading or title
            self.label, self.paragraph = title, ""
        elif self.items and not self.items[-1]:
            self.items[-1] = self.label = title
            self.paragraph = ""
        else:
            self.paragraph = _plain(text)

    def _take_fence(self, token: Token) -> None:
        assert token.map is not None  # every block token has one
        start, end = token.map
        opening = self.lines[start].rstrip()
        raw = token.info.strip()
        info = parse_info(raw, line=start + 1, column=len(opening) - len(raw) + 1)
        language = _language(info, start + 1)
        if language is None:
            return
        if not _is_closed(token, self.lines[end - 1]):
            raise InvalidPlan(
                "the fence is not closed before its block ends", f"line {start + 1}", f"end it with {token.markup}"
            )
        title = next((text for text in reversed(self.items) if text), "") or self.label
        fields = read_attributes(info.attributes, self.front.permissions)
        inputs = fields.pop("inputs", None)
        if isinstance(inputs, Reference):
            fields["inputs_from"] = inputs
        elif inputs is not None:
            fields["inputs"] = inputs
        fields.setdefault("title", title)
        code = _module(token.content, start + 2) if language == "wasm" else token.content
        self.drafts.append(
            {"code": code, "language": language, "description": self.paragraph, "line": start + 2, **fields}
        )
        self.paragraph = ""

    def steps(self) -> tuple[Step, ...]:
        """Return the steps; those that name themselves keep their ids, whatever came before them."""
        taken = {draft["id"] for draft in self.drafts if "id" in draft}
        for number, draft in enumerate(self.drafts, 1):
            if "id" not in draft:
                draft["id"] = _unused_id(draft["title"], taken, number)
                taken.add(draft["id"])
        return tuple(Step(**draft) for draft in self.drafts)


def _language(info: Info, line: int) -> str | None:
    """Return the step's language, or None for a fence that is to be read."""
    word = info.language.lower()
    if word in TEXT_LANGUAGES or not word:
        if not info.attributes:
            return None
        if not word:
            return AUTO
        names = ", ".join(STEP_LANGUAGES)
        raise info.attributes[0].wrong(f"a {word} block is not a step", f"say one of {names}, or drop the attributes")
    if word == AUTO:
        return AUTO
    try:
        return resolve(word)
    except UnknownLanguage as error:
        remedy = f"{error.remedy}; write text for what is only to be read"
        raise InvalidPlan(error.what, f"line {line}", remedy, {"line": line}) from None


def _is_closed(token: Token, last_line: str) -> bool:
    """Say whether a fence ended with its mark rather than with its block (spec 4.5)."""
    assert token.map is not None
    if token.map[1] - token.map[0] < 2:
        return False
    content_lines = token.content.count("\n")
    if token.map[1] - token.map[0] != content_lines + 2:
        return False
    mark = last_line.lstrip(" \t>").rstrip()
    return len(mark) >= len(token.markup) and not mark.strip(token.markup[0])


def _module(text: str, line: int) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidPlan(
            f"the wasm module is not base64: {error}", f"line {line}", "encode the module's bytes, or write wat"
        ) from None


def _plain(text: str) -> str:
    return " ".join(_MARKS.sub("", text).split())


def _title(text: str) -> str:
    """Return what a heading or list item is called, without marks, number or explanation."""
    plain = _NUMBERING.sub("", _MARKS.sub("", text).strip())
    return " ".join(_TITLE_END.split(plain, maxsplit=1)[0].split()) or " ".join(plain.split())


def _unused_id(title: str, taken: set[str], number: int) -> str:
    text = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "_", text).strip("_")
    if len(slug) > _MAX_SLUG:
        slug = slug[:_MAX_SLUG].rpartition("_")[0] or slug[:_MAX_SLUG]
    if not slug or not slug[0].isalpha() or slug in RESERVED_IDS:
        slug = f"step_{number}"
    candidate, count = slug, 1
    while candidate in taken:
        count += 1
        candidate = f"{slug}_{count}"
    return candidate
