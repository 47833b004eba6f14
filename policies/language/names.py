"""The languages runvisor runs, the other names people give them, and those it does not run yet."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from runvisor.policies.errors import UnknownLanguage

LANGUAGES: Final = (
    "python",
    "javascript",
    "typescript",
    "wat",
    "wasm",
    "c",
    "c-record",
    "c-packet",
    "cpp",
    "zig",
    "go",
    "rust",
    "component",
)
"""Canonical names: what a `Task` holds. ``c-record`` is a C function that runs once per record,
``c-packet`` one that runs once per packet."""

ALIASES: Final[Mapping[str, str]] = {
    "py": "python",
    "python3": "python",
    "ipython": "python",
    "cpython": "python",
    "js": "javascript",
    "mjs": "javascript",
    "cjs": "javascript",
    "node": "javascript",
    "nodejs": "javascript",
    "ecmascript": "javascript",
    "v8": "javascript",
    "ts": "typescript",
    "mts": "typescript",
    "cts": "typescript",
    "wast": "wat",
    "webassembly": "wasm",
    "wasm32": "wasm",
    "wasm-component": "component",
    "ansi-c": "c",
    "c99": "c",
    "c11": "c",
    "c17": "c",
    "ebpf": "c-record",
    "bpf": "c-record",
    "record": "c-record",
    "crecord": "c-record",
    "ebpf-c": "c-record",
    "bpf-c": "c-record",
    "packet": "c-packet",
    "cpacket": "c-packet",
    "xdp": "c-packet",
    "socket-filter": "c-packet",
    "c++": "cpp",
    "cxx": "cpp",
    "c++17": "cpp",
    "c++20": "cpp",
    "golang": "go",
    "rs": "rust",
}
"""Other spellings, in lower case with ``-`` for spaces and underscores."""

DISPLAY: Final[Mapping[str, str]] = {
    "python": "Python",
    "javascript": "JavaScript",
    "wat": "WebAssembly text",
    "wasm": "WebAssembly",
    "component": "a WebAssembly component",
    "c": "C",
    "c-record": "a C record function",
    "c-packet": "a C packet function",
    "typescript": "TypeScript",
    "tsx": "TypeScript with JSX",
    "rust": "Rust",
    "go": "Go",
    "bash": "Bash",
    "sql": "SQL",
    "cpp": "C++",
    "java": "Java",
    "csharp": "C#",
    "kotlin": "Kotlin",
    "swift": "Swift",
    "ruby": "Ruby",
    "php": "PHP",
    "perl": "Perl",
    "lua": "Lua",
    "r": "R",
    "zig": "Zig",
    "html": "HTML",
    "css": "CSS",
    "json": "JSON",
    "yaml": "YAML",
    "markdown": "Markdown",
}
"""How people write each language that can be named, run or not."""

ADVICE: Final[Mapping[str, str]] = {
    "bash": "write what it does in Python or JavaScript",
    "sql": "run it from Python with sqlite3",
    "json": "pass it as inputs",
    "yaml": "pass it as inputs, parsed",
    "tsx": "compile its JSX to TypeScript",
    "markdown": "pass what is in its code blocks, or run the whole as a plan",
}
"""What to do with code in a language that runvisor does not run."""

_FOREIGN_ALIASES: Final[Mapping[str, str]] = {
    "sh": "bash",
    "shell": "bash",
    "zsh": "bash",
    "c#": "csharp",
    "cs": "csharp",
    "kt": "kotlin",
    "rb": "ruby",
    "pl": "perl",
    "postgresql": "sql",
    "sqlite": "sql",
    "mysql": "sql",
    "yml": "yaml",
    "md": "markdown",
}


SUFFIXES: Final[Mapping[str, str]] = {
    "py": "python",
    "pyw": "python",
    "js": "javascript",
    "mjs": "javascript",
    "cjs": "javascript",
    "wat": "wat",
    "wasm": "wasm",
    "c": "c",
    "h": "c",
    "ts": "typescript",
    "tsx": "tsx",
    "mts": "typescript",
    "cts": "typescript",
    "rs": "rust",
    "go": "go",
    "sh": "bash",
    "bash": "bash",
    "sql": "sql",
    "cpp": "cpp",
    "cc": "cpp",
    "cxx": "cpp",
    "hpp": "cpp",
    "java": "java",
    "cs": "csharp",
    "kt": "kotlin",
    "swift": "swift",
    "rb": "ruby",
    "php": "php",
    "pl": "perl",
    "lua": "lua",
    "r": "r",
    "zig": "zig",
    "html": "html",
    "css": "css",
    "json": "json",
    "yaml": "yaml",
    "yml": "yaml",
    "md": "markdown",
}
"""The language that a file's suffix (lower case, no dot) stands for, run or not."""

INTERPRETERS: Final[Mapping[str, str]] = {
    "python": "python",
    "pypy": "python",
    "node": "javascript",
    "deno": "javascript",
    "bun": "javascript",
    "sh": "bash",
    "bash": "bash",
    "zsh": "bash",
    "dash": "bash",
    "ruby": "ruby",
    "perl": "perl",
    "php": "php",
    "lua": "lua",
}
"""The language of a program on a shebang line, run or not."""


def resolve(name: str) -> str:
    """Return the canonical name of a language that runvisor runs.

    Case, surrounding space and ``_`` against ``-`` do not matter. ``auto`` is
    no language: let `detect` look at the code instead.

    Args:
        name: A canonical name or an alias.

    Raises:
        UnknownLanguage: runvisor does not run it; the message names close
            matches and ``details["languages"]`` holds the whole list.

    Example:
        >>> resolve("JS"), resolve("eBPF"), resolve("Python3")
        ('javascript', 'c-record', 'python')
        >>> resolve("pyton")
        Traceback (most recent call last):
        ...
        runvisor.policies.errors.UnknownLanguage: 'pyton' is not a language that runvisor runs (at language); \
did you mean python? It runs python, javascript, typescript, wat, wasm, c, c-record, \
c-packet, cpp, zig, go, rust, component
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-") if isinstance(name, str) else ""
    if key in LANGUAGES:
        return key
    if key in ALIASES:
        return ALIASES[key]
    everything = f"runs {', '.join(LANGUAGES)}"
    details = {"languages": list(LANGUAGES)}
    foreign = _FOREIGN_ALIASES.get(key, key)
    if foreign in DISPLAY:
        raise UnknownLanguage(
            f"runvisor does not run {DISPLAY[foreign]} yet",
            "language",
            f"it {everything}",
            {**details, "seems": foreign},
        )
    close = list(
        dict.fromkeys(
            ALIASES.get(match, match) for match in get_close_matches(key, [*LANGUAGES, *ALIASES], n=3, cutoff=0.7)
        )
    )
    hint = f"did you mean {' or '.join(close)}? It {everything}" if close else f"it {everything}"
    raise UnknownLanguage(
        f"{name!r} is not a language that runvisor runs", "language", hint, {**details, "close": close}
    )
