"""Which inputs a piece of code mentions: data flow read off the text.

A mention too many only makes a step wait; a mention too few would make it fail.
So the text is searched, not parsed: only lines that are comments as a whole are
left out. Parsing is not tried either because CPython's parser can be brought
down by deeply nested source, and this runs outside every sandbox.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import Final

_COMMENT_LINE: Final = {
    "python": re.compile(r"^[ \t]*#.*$", re.MULTILINE),
    "javascript": re.compile(r"^[ \t]*//.*$", re.MULTILINE),
}
_PARAMETER: Final = {
    "python": re.compile(r"\bdef[ \t]{1,9}main[ \t]{0,9}\([ \t\n]{0,40}([A-Za-z_]\w{0,63})"),
    "javascript": re.compile(r"\bfunction[ \t]{1,9}main[ \t]{0,9}\([ \t\n]{0,40}([A-Za-z_$][\w$]{0,63})"),
}
_GAP: Final = r"\s{0,40}"
"""Space within an expression; bounded, as every repetition here, so that hostile code takes linear time."""
_MAX_MAINS: Final = 3
_COMPILED: Final = frozenset({"wat", "wasm", "c", "c-record", "c-packet", "cpp", "zig", "go", "rust", "component"})
"""Their inputs come by stdin or as parameters: nothing in the text names them."""
_UNPACKED_PARAMETER: Final = re.compile(r"\bfunction[ \t]{1,9}main[ \t]{0,9}\([ \t\n]{0,40}\{([^{}]{0,2000})\}")


def mentioned_inputs(code: str | bytes, language: str) -> tuple[str, ...]:
    r"""Return the names of inputs that code mentions, in order of appearance.

    Understood: ``inputs["x"]``, ``inputs['x']``, ``inputs.x``, ``inputs.get("x")``,
    ``inputs?.x``, ``const { x, y: z } = inputs``; and the same with the first
    parameter of ``main`` for ``inputs``. A module's bytes mention nothing.

    Args:
        code: Source text, or a module's bytes.
        language: A language of `model.STEP_LANGUAGES`.

    Example:
        >>> mentioned_inputs("def main(data):\n    return data['a'] + inputs.get('b')", "python")
        ('a', 'b')
        >>> mentioned_inputs("const { rows, names: n } = inputs; rows.map(r => r[n])", "javascript")
        ('rows', 'names')
    """
    if isinstance(code, bytes) or language in _COMPILED:
        return ()
    languages = (language,) if language in _PARAMETER else tuple(_PARAMETER)
    for name in languages:
        code = _COMMENT_LINE[name].sub("", code)
    found: list[tuple[int, str]] = []
    for root in dict.fromkeys(["inputs", *_parameters(code, languages)]):
        name = re.escape(root)
        access = re.compile(
            rf"(?<![\w$.]){name}{_GAP}(?:"
            rf"""(?:\?\.{_GAP})?\[{_GAP}(?P<quote>["'`])(?P<key>[^"'`\n]{{1,64}})(?P=quote){_GAP}\]"""
            rf"""|\.{_GAP}get{_GAP}\({_GAP}(?P<quote2>["'])(?P<got>[^"'\n]{{1,64}})(?P=quote2)"""
            rf"""|\??\.{_GAP}(?P<attribute>[A-Za-z_$][\w$]{{0,63}}))"""
        )
        for match in access.finditer(code):
            found.append((match.start(), match["key"] or match["got"] or match["attribute"]))
        unpacked = re.compile(rf"\{{([^{{}}]{{0,2000}})\}}{_GAP}={_GAP}{name}(?![\w$.\[])")
        found += [(match.start(), key) for match in unpacked.finditer(code) for key in _unpacked_keys(match[1])]
    if "javascript" in languages:
        for match in _UNPACKED_PARAMETER.finditer(code):
            found += [(match.start(), key) for key in _unpacked_keys(match[1])]
    return tuple(dict.fromkeys(key for _, key in sorted(found, key=lambda pair: pair[0])))


def _parameters(code: str, languages: tuple[str, ...]) -> list[str]:
    matches = (match for name in languages for match in islice(_PARAMETER[name].finditer(code), _MAX_MAINS))
    return [match[1] for match in matches]


def _unpacked_keys(text: str) -> list[str]:
    keys = (re.match(r"""\s*["']?([A-Za-z_$][\w$-]{0,63})""", part) for part in text.split(","))
    return [match[1] for match in keys if match]
