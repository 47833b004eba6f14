"""Tells the language of a piece of code by hints, a small model, rules and parsers, in well under a millisecond.

In order, the first that settles it: the wasm magic number, the word of a Markdown
fence, the file's suffix, a shebang line, WebAssembly text's ``(module``, a JSON
document (no program), an opening that only one language has; then the odds of a
trained model, to which rules add what single words and line shapes say, and Python's
own parser its word. Code valid in Python and JavaScript alike, such as ``1+1``, is
taken for Python with a confidence of exactly `MIN_CONFIDENCE`.

A guess picks a parser; it never widens what the code may do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runvisor.policies.errors import UnknownLanguage
from runvisor.policies.language.evidence import PROSE, ranking, weigh
from runvisor.policies.language.names import ADVICE, DISPLAY, INTERPRETERS, LANGUAGES, SUFFIXES, resolve
from runvisor.policies.language.syntax import Python, as_python, is_json_document
from runvisor.policies.language.weights import DIALECT_OF, OPENINGS

MIN_CONFIDENCE: Final = 0.7
"""Below it, `detect` asks the caller instead of guessing."""

_HEAD_CHARS: Final = 8_192
_REMEDY: Final = f"pass language=... with one of {', '.join(LANGUAGES)}"
_BINARY: Final = ("wasm", "component")
_WASM_MAGIC: Final = b"\0asm"
_COMPONENT_MAGIC: Final = b"\0asm\x0d\0\1\0"
_COMMENTS: Final = r"(?:\s|;;[^\n]*\n|(?>\(;.*?;\)))*+"
_COMPONENT = re.compile(rf"{_COMMENTS}\(component\b", re.DOTALL)
_WAT = re.compile(rf"{_COMMENTS}\((?:module\b|(?:func|memory|table|global)\s+[$(])", re.DOTALL)
_CALLED = re.compile(
    r"\b(?:int|long|void|bool|unsigned|double|float|size_t|\w+_t|(?:__)?[us]\d+)[\s*]+(on_record|on_packet|on_xdp)\s*\("
)
_CALLED_IN = {"on_record": "c-record", "on_packet": "c-packet", "on_xdp": "c-packet"}

_PARSER_SAYS: Final = {
    Python.ONLY: 6.0,
    Python.ALSO: 0.0,
    Python.HARDLY: -1.0,
    Python.NO: -0.3,
    Python.TOO_LONG: 0.0,
}
"""The log of how much likelier each word of the parser is for a window of Python than for one of another."""
_CLEAR: Final = 0.75
"""What the likeliest must have together with its dialect or parent, which run the same code as a rule."""
_SETTLED: Final = 7.0
"""A lead that no parser's word would turn."""

_FEW_LINES: Final = 3
"""In as many or fewer the rules alone are often surer than the model with them, and then they are heard: one
line gains much by it, windows of three lines lose a little."""
_PARSER_SAYS_OF_FEW: Final = {
    Python.ONLY: 4.0,
    Python.ALSO: 0.8,
    Python.HARDLY: -1.0,
    Python.NO: -1.5,
    Python.TOO_LONG: 0.0,
}
_LAST_SEMICOLON: Final = 2.5
"""For JavaScript, when Python would accept the few lines too."""
_NO_CODE: Final = 1.5
"""What a language must beat there: the score of text that is no code at all."""
_CODE: Final = 0.5
"""The same where a parser has seen that it is code."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A language with how sure the detector is and why."""

    language: str
    """A name of `LANGUAGES`."""
    confidence: float
    """0.7 to 1."""
    reason: str
    """One clause, to follow "Taken for Python: "."""
    alternatives: tuple[tuple[str, float], ...] = ()
    """Other languages it could be, with their confidence, likeliest first."""


def detect(code: str | bytes, filename_hint: str = "", fence_hint: str = "") -> Guess:
    """Tell the language of a piece of code.

    Args:
        code: Source text, UTF-8 bytes, or a wasm module.
        filename_hint: The file's name, if there is one; only its suffix is read.
        fence_hint: The word behind the marks of a Markdown fence; one that names no language is passed over.

    Returns:
        A guess of at least `MIN_CONFIDENCE`.

    Raises:
        UnknownLanguage: It is empty, data, a language that runvisor does not
            run, or not clear enough; ``details["candidates"]`` lists
            ``[language, confidence]`` pairs. Nothing was started.

    Example:
        >>> detect("console.log(1)").language, detect("def f(): return 1").language
        ('javascript', 'python')
        >>> detect("1+1")
        Guess(language='python', confidence=0.7, \
reason='it is valid in several languages, and Python is preferred', alternatives=(('javascript', 0.3),))
    """
    if isinstance(code, bytes):
        if code.startswith(_COMPONENT_MAGIC):
            return Guess("component", 1.0, "it starts as a wasm component does")
        if code.startswith(_WASM_MAGIC):
            return Guess("wasm", 1.0, "it starts with the wasm magic number")
        try:
            code = code.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise UnknownLanguage(
                "the code is neither UTF-8 text nor a wasm module", "code", "pass language=... and text in UTF-8"
            ) from None
    text = code.removeprefix("\ufeff").replace("\r\n", "\n").strip("\n")
    stripped = text.strip()
    if not stripped:
        raise UnknownLanguage("the code is empty", "code", "pass some code")
    return (
        _by_fence(stripped, fence_hint)
        or _by_suffix(stripped, filename_hint)
        or _by_first_line(stripped)
        or _by_evidence(text, stripped)
    )


def _by_fence(text: str, word: str) -> Guess | None:
    try:
        language = resolve(word)
    except UnknownLanguage as error:
        seems = error.details.get("seems")
        if seems:
            raise _not_run(seems, ((seems, 0.99),), f": its fence says {word}") from None
        return None
    return None if language in _BINARY else _settled(language, 0.99, f"its fence says {word}", text)


def _by_suffix(text: str, filename: str) -> Guess | None:
    _, dot, suffix = filename.rpartition(".")
    language = SUFFIXES.get(suffix.lower()) if dot else None
    if language is None:
        return None
    reason = f"the file's name ends in .{suffix}"
    if language == "wat" and _COMPONENT.match(text):
        return Guess("component", 0.99, "it opens with the text form of a component")
    if language == "wasm":
        raise UnknownLanguage(f"{reason}, but it is not a wasm module", "code", "pass the module's bytes as they are")
    return _settled(language, 0.99, reason, text)


def _by_first_line(text: str) -> Guess | None:
    program = _interpreter(text[:200]) if text.startswith("#!") else ""
    if program in INTERPRETERS:
        return _settled(INTERPRETERS[program], 0.99, f"its first line asks for {program}", text)
    if _COMPONENT.match(text):
        return Guess("component", 0.99, "it opens with the text form of a component")
    if _WAT.match(text):
        return Guess("wat", 0.99, "it opens with a WebAssembly text form")
    if is_json_document(text):
        raise _unknown("json", "this is a JSON document, not a program", (), "pass it as inputs, or pass language=...")
    for language, opening in OPENINGS:
        if opening.match(text):
            raise _not_run(language, ((language, 0.99),))
    return None


def _interpreter(text: str) -> str:
    """Return the program of a shebang line: ``python`` for ``#!/usr/bin/env -S python3.11 -u``."""
    words = [word for word in text.partition("\n")[0][2:].split() if not word.startswith("-")]
    programs = [word.rpartition("/")[2] for word in words]
    program = programs[1] if programs[:1] == ["env"] and len(programs) > 1 else "".join(programs[:1])
    return program.rstrip("0123456789.")


def _by_evidence(text: str, stripped: str) -> Guess:
    head = text if len(text) <= _HEAD_CHARS else text[: text.rfind("\n", 0, _HEAD_CHARS) + 1 or _HEAD_CHARS]
    odds, short = weigh(head)
    rival = max(odd for language, odd in odds.items() if language != "python")
    verdict = Python.TOO_LONG
    if abs(odds["python"] - rival) < _SETTLED:
        verdict = as_python(text)
        odds["python"] += _PARSER_SAYS[verdict]
    shares = ranking(odds)
    is_clear = _with_kin(shares) >= _CLEAR
    if stripped.count("\n") < _FEW_LINES:
        by_rules = _of_few_lines(short, verdict, stripped)
        if by_rules[0][0] != PROSE and by_rules[0][1] > max(shares[0][1], MIN_CONFIDENCE):
            shares, is_clear = by_rules, True
    best, confidence = shares[0]
    candidates = [pair for pair in shares if pair[0] != PROSE]
    if best in LANGUAGES and confidence >= MIN_CONFIDENCE and is_clear:
        only_python = best == "python" and verdict is Python.ONLY
        reason = verdict.value if only_python else f"its words and lines are {DISPLAY[best]}'s"
        return _settled(best, min(confidence, 0.99), reason, stripped, tuple(candidates[1:4]))
    if verdict is Python.ALSO and max(short.values(), default=0.0) < _NO_CODE:
        return Guess(
            "python",
            MIN_CONFIDENCE,
            "it is valid in several languages, and Python is preferred",
            (("javascript", round(1 - MIN_CONFIDENCE, 2)),),
        )
    if best not in LANGUAGES and best != PROSE and confidence >= 0.5:
        raise _not_run(best, candidates)
    shown = ", ".join(f"{language} {share:.0%}" for language, share in candidates[:3])
    raise _unknown("", "the language is not clear from the code" + (f" ({shown})" if shown else ""), candidates)


def _with_kin(shares: list[tuple[str, float]]) -> float:
    best, confidence = shares[0]
    kin = {DIALECT_OF.get(best)} | {dialect for dialect, parent in DIALECT_OF.items() if parent == best}
    return confidence + sum(share for language, share in shares[1:] if language in kin)


def _of_few_lines(rules: dict[str, float], verdict: Python, text: str) -> list[tuple[str, float]]:
    """Return the shares by rules and parser alone."""
    known = dict(rules)
    known["python"] = known.get("python", 0.0) + _PARSER_SAYS_OF_FEW[verdict]
    if verdict is Python.ALSO and text.endswith(";"):
        known["javascript"] = known.get("javascript", 0.0) + _LAST_SEMICOLON
    known[PROSE] = _CODE if verdict in (Python.ALSO, Python.ONLY) else _NO_CODE
    return ranking(known)


def _settled(
    language: str, confidence: float, reason: str, text: str, alternatives: tuple[tuple[str, float], ...] = ()
) -> Guess:
    if language not in LANGUAGES:
        raise _not_run(language, ((language, confidence),), f": {reason}")
    if language == "c" and (called := _CALLED.search(text)):
        return Guess(_CALLED_IN[called[1]], confidence, f"it is C and defines {called[1]}", alternatives)
    return Guess(language, confidence, reason, alternatives)


def _not_run(language: str, ranking: Sequence[tuple[str, float]], why: str = "") -> UnknownLanguage:
    what = f"this looks like {DISPLAY[language]}, which runvisor does not run yet{why}"
    advice = ADVICE.get(language)
    return _unknown(language, what, ranking, f"{advice}, or {_REMEDY}" if advice else _REMEDY)


def _unknown(
    seems: str,
    what: str,
    ranking: Sequence[tuple[str, float]],
    remedy: str = _REMEDY,
) -> UnknownLanguage:
    return UnknownLanguage(
        what,
        "code",
        remedy,
        {"seems": seems, "candidates": [list(pair) for pair in ranking], "languages": list(LANGUAGES)},
    )
