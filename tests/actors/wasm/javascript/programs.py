"""Generated programs inside the profile that QuickJS and V8 share: templates, whose holes are filled again."""

from __future__ import annotations

import re
from random import Random
from typing import Final

from hypothesis import strategies as st

_HOLE: Final = re.compile(r"@([a-z]+)")
_DEPTH: Final = 4
_LETTERS: Final = "abcXYZ 019-_,.;\u00e9\u00df\u4e2d\U0001f600"
_CHOICES: Final[dict[str, list[str]]] = {
    "regex": [
        "/a/g", "/[a-c]+/i", "/(\\d)(\\w)?/g", "/\\s+/", "/^.|.$/g", "/(?<n>X)/", "/b(?=X)/", "/(?<!a)b/", "/x|y|z/gi",
        "/./gu",
    ],
    "op": ["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", ">>>"],
    "cmp": ["<", "<=", ">", ">=", "===", "!==", "==", "!="],
    "fn": ["floor", "ceil", "round", "trunc", "sqrt", "abs", "sign", "fround", "clz32"],
    "kind": ["Int8Array", "Uint8Array", "Uint8ClampedArray", "Int16Array", "Uint32Array", "Float32Array"],
    "error": ["Error", "TypeError", "RangeError", "SyntaxError"],
    "lnum": ["NaN", "Infinity", "(-0)", "0.1", "1e21", "5e-324", "x", "y", "@int", "@int", "@int", "@float", "@float"],
    "lstr": ["''", "'12px'", "' 7 '", "'0x1f'", "'1e3'", "s", "'a,b,,c'", "'aXbX'", "@text", "@text"],
    "lbool": ["(@lnum @cmp @lnum)", "true", "false"],
    "llist": ["[@lnum, @lnum]", "[]"],
    "num": [
        "@lnum", "(@lnum @op @lnum)", "(@num @op @lnum)", "Math.@fn(@num)", "Math.max(@num, @lnum)", "Math.imul(@num, @lnum)",
        "@str.length", "@list.length", "parseInt(@str)", "parseFloat(@str)", "Number(@str)", "(@bool ? @num : @lnum)",
        "@list.reduce((a, b) => a + b, 0)", "@list.indexOf(@lnum)", "@list.findLastIndex((v) => v > @lnum)",
        "(@list.at(@at) ?? -1)", "@str.charCodeAt(@small)", "@str.indexOf(@lstr)", "@str.search(@regex)", "f(@num)",
        "parseInt(@lstr, 36)", "(-@num)", "(~@num)", "Number(@bool)", "new @kind(@list)[0]", "Math.min(...@list)",
    ],
    "str": [
        "@lstr", "(@lstr + @lstr)", "`<${@num}|${@str}>`", "@str.slice(@at, @at)", "@str.toUpperCase()", "@str.repeat(@small)",
        "@str.padStart(@small, @lstr)", "@str.replace(@regex, '[$&]')", "@str.split(@lstr).join('/')", "String(@num)",
        "(@lnum).toFixed(@digits)", "JSON.stringify(@list)", "@str.charAt(@small)", "@str.trim()", "@list.join('-')", "typeof @num",
        "@str.replaceAll(@lstr, (m) => m.length)", "(@str.match(@regex) ?? []).join('|')", "[...@str].reverse().join('')",
        "JSON.stringify({ a: @num, b: @str, c: [@bool, null, undefined] })", "encodeURIComponent(@str)", "String(@list)",
        "(@lnum | 0).toString(16)", "@str.substring(@at, @at)", "[...@str.matchAll(/[a-z]/gi)].map((m) => m.index).join()",
        "@str.normalize('NFD')", "String.raw`${@num}`", "(@bool ? @str : @lstr)", "JSON.stringify(@str)", "escape(@lstr)",
    ],
    "list": [
        "[@lnum, @lnum, @num]", "[]", "[@num]", "@list.map((v, i) => v * i)", "@list.filter((v) => v > @lnum)", "@list.slice(@at)",
        "[...@list, ...@list]", "@list.toSorted((a, b) => a - b)", "@list.toReversed()", "[[@num], [[@lnum]]].flat(@small)",
        "Array.from({ length: @small }, (_, i) => i * @lnum)", "[...new Set(@list)]", "Object.values({ b: @num, a: @lnum, 1: @num })",
        "[...@str].map((c) => c.codePointAt(0))", "@list.with(0, @num).concat(@lnum)", "[...new @kind(@list)]", "@list.sort()",
        "@list.flatMap((v) => [v, -v])", "@list.fill(@lnum, @at)", "@list.values().map((v) => v + 1).take(3).toArray()",
        "[...new Map([[@num, 1], [@lnum, 2]]).keys()]", "@list.copyWithin(@at, @at)", "@list.splice(@at, @small)",
    ],
    "bool": [
        "(@num @cmp @num)", "(@str @cmp @str)", "(@num == @str)", "!@bool", "(@bool && @bool)", "@regex.test(@str)",
        "@list.includes(@lnum)", "@list.every((v) => v @cmp @lnum)", "Number.isInteger(@num)", "Object.is(@num, @lnum)",
        "@str.startsWith(@lstr)", "isNaN(@num)", "Number.isSafeInteger(@num)", "('a' in { a: @num })", "@str.isWellFormed()",
    ],
}  # fmt: skip
_HEAD: Final = "let x = @lnum, y = @lnum, s = @lstr;\nfunction f(a) { return a > 0 ? a - 1 : a }\n"
_TOLD: Final = "(v) => [String(v), Object.is(v, -0), typeof v]"
_PROGRAMS: Final = [
    _HEAD + "[@num, @num, @num].map(" + _TOLD + ")",
    _HEAD + "[@str, @str, @bool, @list, @list.map(" + _TOLD + ")]",
    _HEAD + "for (let i = 0; i < @small; i++) { x = (x + i) @op @num; s = @str.slice(0, 50); }\n[String(x), s]",
    _HEAD + "const make = (n) => { let seen = n; return () => { seen = seen @op @lnum; return seen } };\n"
    "const next = make(@num);\n[next(), next(), next()].map(" + _TOLD + ")",
    _HEAD + "class A { #v = @num; static made = 0; constructor() { A.made++ } get v() { return this.#v }\n"
    "  set v(n) { this.#v = n } toString() { return `A(${this.#v})` } }\n"
    "class B extends A { get v() { return [super.v] } }\nconst b = new B(); b.v = @num;\n"
    "[`${b}`, String(b.v), A.made, b instanceof A, Object.keys(b)]",
    _HEAD + "function* walk(n) { while (n-- > 0) { const got = yield n * 2; if (got) x = got } return @num }\n"
    "const it = walk(@small); [it.next(), it.next(@lnum), String(x), [...it]]",
    _HEAD
    + "const main = async (inputs) => { const out = []; const wait = (n, v) => new Promise((r) => setTimeout(() => r(v), n));\n"
    "  queueMicrotask(() => out.push('micro')); out.push(String(@num)); await null; out.push(@str);\n"
    "  out.push(...(await Promise.all([wait(2, 'b'), wait(1, 'a'), @str]))); return out }",
    _HEAD + "const { a = @num, ...rest } = { b: @str, c: @list }; const [p, , q = 9] = @list;\n"
    "[String(a), rest, p === undefined ? 'none' : String(p), String(q)]",
    _HEAD + "let told = ''; try { if (@bool) throw new @error(@str); told += 'through' }\n"
    "catch (e) { told += e.name } finally { told += '!' }\ntold + (x?.y ?? 'none')",
    _HEAD + "if (@bool) throw new @error('it is ' + @str);\n@str",
    _HEAD + "console.log(@num, @str, @bool); console.log(@list); console.error({ a: @num, b: [@str, { c: @bool }] });",
    _HEAD + "const counts = new Map(); for (const c of @str + @str) counts.set(c, (counts.get(c) ?? 0) + 1);\n"
    "[[...counts].sort(), JSON.parse(JSON.stringify({ n: @num, l: @list }))]",
    _HEAD + "const big = BigInt(Math.trunc(@lnum) || 7); const two = 10n + big;\n"
    "[big * two, two << 5n, -big / 3n, big % 4n, String(big & 255n), BigInt.asIntN(8, big), big > two]",
    _HEAD
    + "label: for (const i of [1, 2, 3]) { for (const j of @list) { if (j > i) continue label; if (j < -3) break label; x += i } }\n"
    "switch (typeof @num + x % 2) { case 'number0': s += '0'; case 'number1': s += '1'; break; default: s += 'd' }\n[String(x), s]",
]  # fmt: skip


@st.composite
def programs(draw: st.DrawFn) -> str:
    """Draw one program."""
    random = draw(st.randoms(use_true_random=False))
    return _filled(random.choice(_PROGRAMS), random, _DEPTH)


def _filled(template: str, random: Random, depth: int) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name == "int":
            return f"({random.choice([random.randint(-20, 20), random.randint(-(2**33), 2**33), 2**31, 2**53])})"
        if name == "float":
            return f"({random.choice([random.uniform(-100, 100), random.uniform(-1e9, 1e9) / 3, 2.0**-30])!r})"
        if name == "text":
            return "'" + "".join(random.choice(_LETTERS) for _ in range(random.randint(0, 8))) + "'"
        if name in ("small", "at", "digits"):
            least, most = {"small": (0, 12), "at": (-5, 8), "digits": (0, 20)}[name]
            return str(random.randint(least, most))
        if name in ("num", "str", "list", "bool") and (depth <= 0 or random.randint(0, 9) < 3):
            name = "l" + name
        return _filled(random.choice(_CHOICES[name]), random, depth - 1)

    return _HOLE.sub(fill, template)
