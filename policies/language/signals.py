"""Scores each language for a text, from words, line shapes and a few patterns.

One pass of a tokenizer, one over the lines, one lookup per distinct token; a
pattern is tried only when a word that it needs was seen. The weights are data
in `runvisor.policies.language.weights`.
"""

from __future__ import annotations

import re
from typing import Final

from runvisor.policies.language.weights import DIALECT_OF, PATTERNS, WORDS

_LEAST_FOREIGN: Final = 3.0
"""Less evidence for a language that does not run is a coincidence of words."""
_NEVER_LEFT_OUT: Final = frozenset(("python", "javascript", "typescript"))
_LEAST_C: Final = 2.0
"""Less for C is only what it shares with every language of braces."""
_PYTHON_BLOCKS: Final = frozenset(("def class if elif else for while try with except finally async match case").split())
_LINE_STARTS: Final = {"}": "^}", "@": "^@", "*": "^*", "#": "^#"}

# Strings and comments come first, so that nothing inside them counts. Every
# unbounded alternative either closes or swallows the rest: no quadratic scans.
_TOKEN: Final = re.compile(
    r'[rRbBuUfF]{0,2}(?:"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"""|\'\'\'|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\')'
    r"|`[^`]*`"
    r"|/\*[\s\S]*?(?:\*/|\Z)|//[^\n]*"
    r"|#(?:include|define|ifdef|ifndef|if|else|endif|pragma|undef)\b|#\[|#[^\n]*"
    r"|[.@]?[A-Za-z_$][\w$]*(?:\(|![(\[])?"
    r"|(?<!=)===(?!=)|!==|=>|->|::|:=|\.\.\.|\*\*|&&|\|\||\+\+|(?<!-)--(?!-)|\?\?|\?\.|<<|>>|\[\[|!(?=[\w($])|[?{]"
)


def _index() -> dict[str, tuple[tuple[str, float], ...]]:
    found: dict[str, dict[str, float]] = {}
    for language, table in WORDS.items():
        for weight, words in table.items():
            for word in words.split():
                found.setdefault(word, {})[language] = weight
    return {word: tuple(weights.items()) for word, weights in found.items()}


_WEIGHTS: Final = _index()


def words(text: str) -> set[str]:
    """Return the distinct words, operators and line shapes of a text, without strings and comments.

    Example:
        >>> sorted(words("const f = (x) => f('def');"))
        ['$;', '=>', 'const', 'f', 'x']
    """
    found: set[str] = set()
    for token in set(_TOKEN.findall(text)):
        first, last = token[0], token[-1]
        if last in "\"'":
            if first in "fF":
                found.add('f"')
            if token[-3:] in ('"""', "'''"):
                found.add('"""')
        elif first == "`":
            if "${" in token:
                found.add("`${")
        elif first == "#":
            if token in _WEIGHTS:  # a directive, not a comment
                found.add(token)
        elif last == "(" and token not in _WEIGHTS:
            found.add(token[:-1])
        elif not token.startswith(("//", "/*")):
            found.add(token)
    found.update(_line_shapes(text))
    return found


def _line_shapes(text: str) -> set[str]:
    shapes: set[str] = set()
    for line in text.split("\n"):
        line = line.strip()
        if not line:
            continue
        first, last = line[0], line[-1]
        if last == ":":
            if line.split(None, 1)[0].rstrip(":(") in _PYTHON_BLOCKS:
                shapes.add("^block")
        elif last == ";":
            shapes.add("$;")
        if first in _LINE_STARTS:
            if first != "#" or line[1:2] in " #":
                shapes.add(_LINE_STARTS[first])
        elif first == "/" and line[1:2] in "/*":
            shapes.add("^" + line[:2])
        elif first == ">" and line.startswith(">>> "):
            shapes.add("^>>>")
        elif first == "e" and line.startswith("export "):
            shapes.add("^export")
    return shapes


def scores(text: str) -> dict[str, float]:
    """Return the log-odds evidence for each language that has any.

    Example:
        >>> max(scores("let xs = [1, 2]; xs.push(3)").items(), key=lambda item: item[1])[0]
        'javascript'
    """
    seen = words(text)
    totals: dict[str, float] = {}
    for word in seen:
        for language, weight in _WEIGHTS.get(word, ()):
            totals[language] = totals.get(language, 0.0) + weight
    for needs, pattern, weights in PATTERNS:
        if not needs.isdisjoint(seen) and pattern.search(text):
            for language, weight in weights.items():
                totals[language] = totals.get(language, 0.0) + weight
    for dialect, parent in DIALECT_OF.items():
        totals[dialect] = totals.get(dialect, 0.0) + totals.get(parent, 0.0)
    for language in totals.keys() - _NEVER_LEFT_OUT:
        if totals[language] < (_LEAST_C if language == "c" else _LEAST_FOREIGN):
            del totals[language]
    return totals
