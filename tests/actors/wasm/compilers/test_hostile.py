"""Texts that attack the compiler: they find nothing of the host, and no compile outlives its bounds."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runvisor.actors.wasm.compilers.compiler import Compiler
from runvisor.actors.wasm.compilers.toolchain import Toolchain
from runvisor.policies import errors
from runvisor.policies.permissions import MiB
from tests.actors.wasm.compilers.conftest import Compile, toolchain_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

CANARY = "canary-7b1f5a"
FINE = {
    "c": "int run(void) { return 0; }",
    "cpp": 'extern "C" int run() { return 0; }',
    "zig": "export fn run() i32 { return 0; }",
    "go": "package main\nfunc main() {}",
    "rust": '#[no_mangle] pub extern "C" fn run() -> i32 { 0 }',
}


@pytest.fixture(scope="module")
def secret() -> Iterator[Path]:
    """A file that every user of the host may read: only what the jail shows keeps it from a compiler."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "secret")
        path.write_text(f'"{CANARY}"')
        path.chmod(0o644)
        yield path


READING = {
    "c include": ("c", '#include "{}"\nint run(void) {{ return 0; }}'),
    "c embed": ("c", 'const char text[] = {{\n#embed "{}"\n}}; const char *run(void) {{ return text; }}'),
    "cpp include": ("cpp", 'const char* text =\n#include "{}"\n;\nextern "C" int run() {{ return text[0]; }}'),
    "cpp incbin": ("cpp", '__asm__(".incbin \\"{}\\""); extern "C" int run() {{ return 0; }}'),
    "zig embedFile": ("zig", 'const text = @embedFile("{}");\nexport fn run() u8 {{ return text[0]; }}'),
    "zig import": ("zig", 'const other = @import("{}");\nexport fn run() u8 {{ return other.x; }}'),
    "go embed": (
        "go",
        'package main\nimport _ "embed"\n//go:embed {}\nvar text string\nfunc main() {{ println(text) }}',
    ),
    "go cgo": ("go", 'package main\n// #include "{}"\nimport "C"\nfunc main() {{}}'),
    "rust include_bytes": (
        "rust",
        'static TEXT: &[u8] = include_bytes!("{}");\nfn main() {{ println!("{{:?}}", TEXT) }}',
    ),
    "rust include_str": ("rust", 'fn main() {{ println!("{{}}", include_str!("{}")) }}'),
    "rust module": ("rust", '#[path = "{}"] mod other;\nfn main() {{}}'),
}


@pytest.mark.parametrize(("language", "code"), READING.values(), ids=READING)
def test_a_text_reads_no_file_of_the_host(compile_text: Compile, secret: Path, language: str, code: str) -> None:
    for path in (str(secret), f"../../../../..{secret}"):
        with pytest.raises(errors.GuestSyntaxError) as caught:
            compile_text(language, code.format(path))
        assert CANARY not in repr(caught.value.details)


@pytest.mark.parametrize("name", ["c embed", "rust include_str"])
def test_the_same_text_reads_a_file_that_the_jail_shows(secret: Path, name: str) -> None:
    language, code = READING[name]
    toolchain = toolchain_of(language)
    place = toolchain.workplace()
    shown = replace(place, readable=(*place.readable, str(secret.parent)))
    compiler = Compiler(_Altered(toolchain, workplace=lambda: shown))
    try:
        assert CANARY.encode() in compiler.compile(code.format(secret))
    finally:
        compiler.close()


@pytest.mark.parametrize("variable", ["PATH", "HOME", "USER", "RUNVISOR_CACHE", "LANG"])
def test_a_text_sees_three_variables_and_none_of_the_host(
    compile_text: Compile, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", CANARY)
    code = f'fn main() {{ println!("<{{}}>", option_env!("{variable}").unwrap_or("absent")) }}'
    module = compile_text("rust", code)
    assert CANARY.encode() not in module
    assert (b"absent" in module) == (variable not in ("PATH", "HOME"))
    assert b"/root" not in module


@pytest.mark.parametrize(
    ("language", "code", "what"),
    [
        ("go", 'package main\nimport _ "embed"\n//go:embed program.go\nvar s string\nfunc main() {}', "embed"),
        ("go", 'package main\n//go:cgo_ldflag "-o/tmp/x"\nfunc main() {}', "cgo"),
        ("go", "package main\nfunc body() int\nfunc main() { body() }", "body"),
        ("rust", "#![feature(asm)]\nfn main() {}", "feature"),
        ("cpp", "int main() { throw 1; }", "exceptions"),
        ("zig", 'comptime { _ = @cImport(@cInclude("stdio.h")); }\nexport fn run() i32 { return 0; }', None),
    ],
)  # fmt: skip
def test_what_reaches_beyond_one_text_is_refused(
    compile_text: Compile, language: str, code: str, what: str | None
) -> None:
    with pytest.raises(errors.GuestSyntaxError) as caught:
        compile_text(language, code)
    assert what is None or what in caught.value.what


ENDLESS = {
    "c++ templates": ("cpp", "template <int N> struct A { static const int v = A<N + 1>::v + A<N - 1>::v; };\n"
                      "int main() { return A<0>::v; }"),
    "c++ constexpr": ("cpp", "constexpr int f() { int n = 0; for (;;) n ^= 1; return n; }\n"
                      "static_assert(f());\nint main() {}"),
    "zig comptime": ("zig", "comptime { @setEvalBranchQuota(4294967295); while (true) {} }\n"
                     "export fn run() i32 { return 0; }"),
    "zig memory": ("zig", "export const hog = [_]u64{1} ** (1 << 31);"),
    "go constants": ("go", "package main\nvar x = [...]string{1 << 33: \"\"}\nfunc main() { println(len(x)) }"),
    "rust macro": ("rust", "#![recursion_limit = \"4294967295\"]\n"
                   "macro_rules! m { ($($t:tt)*) => { m!($($t)* $($t)* x) } }\nfn main() { m!(x) }"),
    "rust constant": ("rust", "const fn f() -> u32 { loop {} }\nconst X: u32 = f();\nfn main() { drop(X) }"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("language", "code"), ENDLESS.values(), ids=ENDLESS)
def test_a_compile_without_end_is_ended_and_the_next_one_works(language: str, code: str) -> None:
    toolchain = toolchain_of(language)
    bounds = replace(toolchain.bounds, timeout_s=5.0)
    ended, next_one = Compiler(_Altered(toolchain, bounds=bounds)), Compiler(toolchain)
    try:
        with pytest.raises((errors.GuestError, errors.LimitExceeded)):
            ended.compile(code)
        assert next_one.compile(FINE[language])
    finally:
        ended.close()
        next_one.close()


def test_a_module_beyond_the_cap_is_refused(compile_text: Compile) -> None:
    with pytest.raises(errors.MemoryLimitExceeded) as caught:
        compile_text("c", "char hog[40000000] = {1}; char *run(void) { return hog; }")
    assert "too large" in caught.value.what


def test_a_compile_beyond_its_memory_is_ended(compile_text: Compile) -> None:
    toolchain = toolchain_of("cpp")
    compiler = Compiler(_Altered(toolchain, bounds=replace(toolchain.bounds, memory_bytes=16 * MiB)))
    try:
        with pytest.raises((errors.MemoryLimitExceeded, errors.GuestError)) as caught:
            compiler.compile('#include <iostream>\n#include <regex>\nint main() { std::regex r("a"); }')
        assert isinstance(caught.value, errors.MemoryLimitExceeded) or "SIG" in caught.value.what
    finally:
        compiler.close()


@pytest.mark.parametrize("language", FINE)
@pytest.mark.parametrize("code", ["", "\0", "\ud800", "{" * 50_000, "\n" * 100_000 + "?"], ids=range(5))
def test_texts_that_are_none_are_syntax_errors_or_empty(compile_text: Compile, language: str, code: str) -> None:
    with contextlib.suppress(errors.GuestError):
        assert isinstance(compile_text(language, code), bytes)
    assert compile_text(language, FINE[language])


class _Altered:
    """A toolchain of which something is different."""

    def __init__(self, toolchain: Toolchain, **different: Any) -> None:
        self._toolchain = toolchain
        self._different = different

    def __getattr__(self, name: str) -> Any:
        return self._different[name] if name in self._different else getattr(self._toolchain, name)
