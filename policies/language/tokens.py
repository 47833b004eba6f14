"""Cuts code of any language into tokens: words, numbers, operators, line starts; what is quoted is left out.

Nothing here knows which language it is: strings keep their quotes only, comments their mark, and a
line start keeps its indentation, for the width of it and tabs or spaces say much.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from zlib import crc32

_WORD_CHARS: Final = 24
"""What is longer is cut: no word that says anything is longer, and the cache of words stays small."""

# Every alternative either closes on its own or swallows the rest: no quadratic scans.
_TOKEN: Final = re.compile(
    rf"""
      [A-Za-z_][A-Za-z0-9_]{{0,{_WORD_CHARS - 1}}}
    | \n[ \t]{{0,8}}
    | [.@$\#%:][A-Za-z_][A-Za-z0-9_]{{0,{_WORD_CHARS - 1}}}
    | [(){{}},;\[\]]
    | ["'`/\#](?:
          (?<=")(?:""[\s\S]*?\"""|(?:\\.|[^"\\\n])*")
        | (?<=')(?:\''[\s\S]*?\'''|(?:\\.|[^'\\\n])*')
        | (?<=`)[^`]*`
        | (?<=/)(?:\*[\s\S]*?(?:\*/|\Z)|/[^\n]*)
        | (?<=\#)(?![a-z!\[])[^\n]*
      )
    | [0-9][0-9A-Za-z_.]{{0,11}}
    | [-=!><:.*&|+?$/%](?:==?|>|-|:|\.[.=]?|\*|&|\||\+|\?|<|\{{|\()?
    | [^\s\w]
    """,
    re.VERBOSE,
)
_OPAQUE: Final = frozenset("\"'`/#")

KEYWORDS: Final = frozenset(
    """
    abstract alignas alignof and any anyerror anytype as asm assert async auto await begin bool boolean box break by
    byte case cast catch chan char check class comptime concept const constexpr continue create crate declare
    decltype def default defer del delete delta desc dict do done double drop dyn each echo elif else elseif elsif
    end enum errdefer error esac except exec exists explicit export exports extends extern f32 f64 fallthrough false
    final finally float fn for foreach foreign friend from fun func function global go goto grant group guard having
    i16 i32 i64 i8 if impl implements import in index inferred inline inner insert instanceof int int32_t int64_t
    interface into is isinstance isize join key keyof lambda last left let limit list local long loop main make map
    match memory mod module move mut my namespace nan native never new nil noexcept none None nonlocal not null nullptr
    number object of on operator option or order orelse our override package param pass pragma primary print private
    priv proc protected prototype pub public raise range readonly record ref register require require_once rescue
    restrict result return rune satisfies sealed select self Self set shift short signed size_t sizeof sql static
    static_cast std str string String struct sub super suspend switch symbol synchronized table template text then
    this throw throws trait transient trigger true True False try type typedef typeof typename u16 u32 u64 u8 uint
    uint32_t uint64_t uint8_t undef undefined union unique unknown unless unreachable unsafe unsigned until update use
    using usize val value values var varchar virtual void volatile when where while with yield
    SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE INDEX VIEW AND OR NOT NULL PRIMARY KEY AS ON
    JOIN LEFT INNER ORDER GROUP BY FUNCTION RETURNS BEGIN END IF DROP ALTER UNION DISTINCT
    #include #define #ifdef #ifndef #endif #if #else #undef #pragma @import @interface @Override
    .const .get .set .add .param .load .store .len .push .map .append .unwrap .length .prototype .then .format .iter
    """.split()
)
"""Words that keep their face in the shape of code; any other is a name, known only by its case."""


def tokens(text: str) -> list[str]:
    r"""Return the tokens of a text.

    Example:
        >>> tokens("let s = 'abc';  // a name")
        ['\n', 'let', 's', '=', "'", ';', '//']
    """
    return [token if token[0] not in _OPAQUE else _mark(token) for token in _TOKEN.findall("\n" + text)]


def _mark(token: str) -> str:
    """Return what is left of a string or a comment."""
    first = token[0]
    if first in "/#":
        return token[:2] if token[1:2] in ("/", "*", "[", "!") else token if token[1:2].isalpha() else first
    if token[:3] == first * 3:
        return first * 3
    return first * 2 if len(token) == 3 else first


@lru_cache(maxsize=1 << 14)
def word_hash(token: str) -> int:
    """Return 64 bits: the hash of a token in the upper half, of its shape in the lower.

    Example:
        >>> word_hash("total") & 0xFFFFFFFF == word_hash("sum") & 0xFFFFFFFF, word_hash("total") == word_hash("sum")
        (True, False)
    """
    return crc32(token.encode("utf-8", "surrogatepass")) << 32 | crc32(_shape(token).encode("utf-8", "surrogatepass"))


def _shape(token: str) -> str:
    if token in KEYWORDS:
        return token
    first = token[0]
    if first == "\n":
        return "\n"
    if "0" <= first <= "9":
        return "0"
    if not (token[-1].isalnum() or token[-1] == "_"):
        return token
    prefix = "" if first.isalpha() or first == "_" else first
    word = token[len(prefix) :]
    case = "a" if word.islower() else "A" if word.isupper() else "Aa" if word[0].isupper() else "aA"
    return prefix + case
