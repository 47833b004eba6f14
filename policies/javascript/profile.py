r"""Whether a program stays within what QuickJS and V8 answer alike: a cheap look at its words.

Two kinds of objection. What is *absent* is a name that only V8 has here: the
program would fail. What *may differ* works in both, with answers that are not
promised to be equal: the engine's own words for an error, the last digit of a
sine, dates as local text. The look takes words in comments and texts for code;
a mistake to that side costs only speed.

The names come from comparing every property of every built-in object of the two
engines; a test does so again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_ABSENT: Final = (
    "Atomics SharedArrayBuffer WebAssembly Intl Temporal fetch Headers Request Response FormData Blob File crypto "
    "performance ReadableStream ReadableStreamDefaultReader ReadableStreamBYOBReader WritableStream "
    "WritableStreamDefaultWriter TransformStream ByteLengthQueuingStrategy CountQueuingStrategy toTemporalInstant "
    "require importScripts process Buffer"
).split()
_WORDS: Final = (
    # Texts of a locale, of the engine, and of numbers in a given length.
    "toLocaleString toLocaleDateString toLocaleTimeString toLocaleUpperCase toLocaleLowerCase localeCompare "
    "captureStackTrace prepareStackTrace stackTraceLimit toPrecision toExponential "
    # Only one of the two has it yet.
    "getOrInsert getOrInsertComputed sumPrecise InternalError sliceToImmutable transferToImmutable "
    # What depends on the collector.
    "WeakRef FinalizationRegistry"
).split()
_MATH: Final = (
    "sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh exp expm1 log log1p log2 log10 cbrt hypot pow"
).split()
_UNEQUAL_PATTERN: Final = re.compile(
    "|".join(
        (
            rf"(?<![\w$])(?:{'|'.join(_WORDS)})(?![\w$])",
            rf"\bMath\.(?:{'|'.join(_MATH)})\b",
            r"\bMath\b(?!\s*\.)",
            r"(?<![\w$.])(?:eval|Function|globalThis)(?![\w$])",  # looks names up when it runs
            r"\.(?:stack|callee|caller|trace)\b",
            r"\bIterator\.(?:concat|zip|zipKeyed)\b",
            r"\.(?:chunks|windows)\(",
            r"\busing\s+[\w$]+\s*=",
            r"\bRegExp\.[$a-z]",
            r"\*\*",
            r"\\[pP]\{",
            r"<!--",
        )
    )
)
_ABSENT_PATTERN: Final = re.compile(
    rf"(?<![\w$.])(?:{'|'.join(_ABSENT)})(?![\w$])|\bmodule\.exports\b|\bexports\.|(?<![\w$.])import\b"
)
_DATE: Final = re.compile(r"(?<![\w$.])Date(?![\w$])")
_EQUAL_DATE: Final = re.compile(
    r"(?<![\w$.])(?:Date\.(?:now|UTC)\(|new\s+Date\([^()]*\)\.(?:toISOString|toJSON|getTime|valueOf|getUTC\w+)\()"
)
_CAUGHT: Final = re.compile(r"\bcatch\s*\(\s*(?P<name>[A-Za-z_$][\w$]*)?|\.catch\s*\(|\ballSettled\b|\bPromise\.any\b")
_RADIX: Final = re.compile(r"\.toString\(\s*(?!(?:2|8|16|10)?\s*\))")
_MAIN_EXPORT: Final = re.compile(r"\bexport\s+(?:default\b|(?:async\s+)?function\s+main\b|(?:const|let|var)\s+main\b)")
_EXPORT: Final = re.compile(r"(?<![\w$.])export\b")


@dataclass(frozen=True, slots=True)
class Objections:
    """What speaks against running a program on QuickJS; empty texts where nothing does."""

    absent: str = ""
    unequal: str = ""


@lru_cache(maxsize=512)
def objections(code: str) -> Objections:
    """Say what of a program QuickJS lacks here, and what of it the two engines may answer differently.

    Args:
        code: JavaScript source.

    Example:
        >>> objections("[3, 1, 2].sort().map((x) => x * 2)")
        Objections(absent='', unequal='')
        >>> objections("await fetch(url)").absent
        'it uses fetch, which is not there'
        >>> objections("Math.sin(1)").unequal
        'it uses Math.sin, whose answers may differ from V8'
    """
    absent = _ABSENT_PATTERN.search(code)
    if absent is not None:
        return Objections(absent=f"it uses {absent[0].rstrip('.')}, which is not there")
    return Objections(unequal=_unequal(code))


def _unequal(code: str) -> str:
    found = _UNEQUAL_PATTERN.search(code)
    if found is not None:
        return f"it uses {found[0].strip('.(')}, whose answers may differ from V8"
    if len(_DATE.findall(code)) > len(_EQUAL_DATE.findall(code)):
        return "it uses Date in ways whose answers may differ from V8"
    if _RADIX.search(code):
        return "it writes numbers in another base, whose digits may differ from V8"
    for caught in _CAUGHT.finditer(code):
        name = caught["name"]
        if name is None and caught[0].lstrip().startswith("catch"):
            return "it takes apart what it catches, whose words may differ from V8"
        if name is None or not _is_only_asked_its_kind(code, name):
            return "it looks at what it catches, whose words may differ from V8"
    if _EXPORT.search(code) and not _MAIN_EXPORT.search(code):
        return "its value is that of a module without a main or default export"
    return ""


def _is_only_asked_its_kind(code: str, name: str) -> bool:
    """Whether a caught error is only compared, named, or thrown on."""
    escaped = re.escape(name)
    uses = len(re.findall(rf"(?<![\w$.]){escaped}(?![\w$])", code))
    harmless = (
        rf"catch\s*\(\s*{escaped}\s*\)|(?<![\w$.]){escaped}\s*(?:instanceof\b|\.name\b)|\bthrow\s+{escaped}\s*[;}}\n]"
    )
    return uses == len(re.findall(harmless, code))
