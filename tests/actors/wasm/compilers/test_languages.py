"""Each compiled language: the examples of the documentation, errors with their place, nothing of the host."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runvisor.actors.artifacts import ArtifactCache
from runvisor.actors.wasm.compilers.compilers import TOOLCHAINS, Compilers
from runvisor.policies import errors
from tests.actors.wasm.compilers.conftest import Compile, toolchain_of
from tests.actors.wasm.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(900),  # the first run on a machine builds the libraries
]

_PAGE = Path(__file__).parents[4] / "docs/wasm.md"
_EXAMPLES = re.findall(r"^```(c|cpp|zig|go|rust)\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)
# What takes a compiler seconds, or a library minutes to be built, is left to the slow run.
_SLOW = {"zig main", "zig function", "go main", "go function", "rust main"}


def _case(language: str, code: str) -> object:
    is_command = '"sum' in code.replace("\\", "")
    name = f"{language} {'main' if is_command else 'function'}"
    inputs, value = ([20, 22], {"sum": 42}) if is_command else ([40, 2], 42)
    return pytest.param(language, code, inputs, value, id=name, marks=[pytest.mark.slow] if name in _SLOW else [])


@pytest.mark.parametrize(("language", "code", "inputs", "value"), [_case(*example) for example in _EXAMPLES])
def test_the_examples_of_the_documentation_run(
    compiled: Run, language: str, code: str, inputs: list[int], value: object
) -> None:
    assert compiled(language, code, inputs).unwrap() == value


def test_the_documentation_has_two_examples_of_each_language() -> None:
    assert [language for language, _ in _EXAMPLES] == [t.language for t in TOOLCHAINS for _ in range(2)]


ERRORS = [
    ("c", "int run(void)\n{\n    return nope;\n}", "3:12", "undeclared identifier 'nope'"),
    ("cpp", 'extern "C" int run()\n{\n    return nope;\n}', "3:12", "undeclared identifier 'nope'"),
    ("cpp", "static int f() { return 1; }", "1:1", "neither a main nor"),
    ("cpp", "int f(int);\nint main() { return f(1); }", "link", "f(int)"),
    ("zig", "export fn run() i32 {\n    return nope;\n}", "2:12", "undeclared identifier 'nope'"),
    ("go", "package main\n\nfunc main() {\n\tnope()\n}", "4:2", "undefined: nope"),
    ("go", 'package main\n\nimport "no/such"\n\nfunc main() {}', "3:8", "no/such"),
    ("rust", "fn main() {\n    nope();\n}", "2:5", "cannot find function `nope`"),
]


@pytest.mark.parametrize(("language", "code", "where", "what"), ERRORS)
def test_an_error_names_line_and_column_and_brings_the_log(
    compile_text: Compile, language: str, code: str, where: str, what: str
) -> None:
    with pytest.raises(errors.GuestSyntaxError) as caught:
        compile_text(language, code)
    assert caught.value.where == where
    assert what in caught.value.what
    assert what in caught.value.details["log"]


NAMED = {
    "c": "__attribute__((noinline)) static int keep_me(int n) { return n ? keep_me(n / 2) + n * 3 : 0; }\n"
    "int run(int n) { return keep_me(n); }",
    "cpp": "__attribute__((noinline)) static int keep_me(int n) { return n ? keep_me(n / 2) + n * 3 : 0; }\n"
    'extern "C" int run(int n) { return keep_me(n); }',
    "zig": "noinline fn keep_me(n: u32) u32 {\n    return if (n > 0) keep_me(n / 2) + n * 3 else 0;\n}\n"
    "export fn run(n: u32) u32 {\n    return keep_me(n);\n}",
    "rust": "#[inline(never)] fn keep_me(n: u32) -> u32 { if n > 0 { keep_me(n / 2) + n * 3 } else { 0 } }\n"
    '#[no_mangle] pub extern "C" fn run(n: u32) -> u32 { keep_me(n) }',
    "go": "package main\n\n//go:noinline\nfunc keep_me(n int32) int32 {\n\tif n == 0 {\n\t\treturn 0\n\t}\n"
    "\treturn keep_me(n/2) + n*3\n}\n\n//go:wasmexport run\nfunc run(n int32) int32 { return keep_me(n) }\n\n"
    "func main() {}",
}


@pytest.mark.parametrize(
    "language", [pytest.param(language, marks=[pytest.mark.slow] * (language == "zig")) for language in NAMED]
)
def test_function_names_are_kept_and_debug_data_is_not(compile_text: Compile, language: str) -> None:
    sections = custom_sections(compile_text(language, NAMED[language]))
    assert b"keep_me" in sections["name"]
    if language != "zig":
        assert not [name for name in sections if name.startswith(".debug")]


def custom_sections(module: bytes) -> dict[str, bytes]:
    """Return the content of a module's custom sections by name."""
    found: dict[str, bytes] = {}
    at = 8

    def number() -> int:
        nonlocal at
        result = shift = 0
        while True:
            byte = module[at]
            at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return result

    while at < len(module):
        kind = module[at]
        at += 1
        size = number()
        end = at + size
        if kind == 0:
            length = number()
            found[module[at : at + length].decode()] = module[at + length : end]
        at = end
    return found


def test_modules_are_found_again_by_another_process_until_something_of_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain_of("c")
    code = "int run(void) { return 5; }"
    first = Compilers(ArtifactCache(tmp_path / "kept", max_bytes=1 << 20))
    try:
        assert first.get("c", code) is None
        module = first.compile("c", code)
        assert first.get("c", code) == module
    finally:
        first.close()
    second = Compilers(ArtifactCache(tmp_path / "kept", max_bytes=1 << 20))
    assert second.get("c", code) == module
    assert second.compile("c", code) == module  # starts nothing
    assert second.get("c", code + " ") is None
    assert second.get("c-record", code) is None
    (file,) = (tmp_path / "kept/wasm").glob("*/*")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert Compilers(ArtifactCache(tmp_path / "kept", max_bytes=1 << 20)).get("c", code) is None
    monkeypatch.setattr("runvisor.actors.wasm.compilers.compilers._recipes", lambda: "other flags")
    third = Compilers(ArtifactCache(tmp_path / "kept", max_bytes=1 << 20))
    assert third.get("c", code) is None


def test_kept_modules_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    toolchain_of("c")
    monkeypatch.setattr("runvisor.actors.wasm.compilers.compilers._MAX_KEPT", 2)
    compilers = Compilers()
    codes = [f"int run(void) {{ return {number}; }}" for number in range(3)]
    try:
        for code in codes:
            compilers.compile("c", code)
        assert [compilers.get("c", code) is not None for code in codes] == [False, True, True]
    finally:
        compilers.close()
        compilers.close()
    with pytest.raises(errors.SpawnFailed):
        compilers.compile("c", codes[0])
