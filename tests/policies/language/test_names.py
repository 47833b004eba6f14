"""Languages by name."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import UnknownLanguage
from runvisor.policies.language import LANGUAGES, SUFFIXES, resolve
from runvisor.policies.language.names import ALIASES, DISPLAY


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("python", "python"),
        ("py", "python"),
        ("Python3", "python"),
        (" JS ", "javascript"),
        ("node", "javascript"),
        ("ECMAScript", "javascript"),
        ("WebAssembly", "wasm"),
        ("WAT", "wat"),
        ("c", "c"),
        ("C11", "c"),
        ("ebpf", "c-record"),
        ("BPF", "c-record"),
        ("record", "c-record"),
        ("c_record", "c-record"),
        ("C Record", "c-record"),
        ("C++", "cpp"),
        ("rs", "rust"),
        ("Golang", "go"),
        ("Zig", "zig"),
    ],
)
def test_every_usual_spelling_finds_its_language(name: str, language: str) -> None:
    assert resolve(name) == language


def test_canonical_names_are_their_own_and_aliases_lead_to_them() -> None:
    assert [resolve(name) for name in LANGUAGES] == list(LANGUAGES)
    assert set(ALIASES.values()) <= set(LANGUAGES)
    assert set(SUFFIXES.values()) <= set(DISPLAY)


def test_a_misspelling_is_answered_with_the_close_match_and_the_list() -> None:
    with pytest.raises(UnknownLanguage, match="did you mean javascript") as caught:
        resolve("javscript")
    assert caught.value.details["close"] == ["javascript"]
    assert caught.value.details["languages"] == list(LANGUAGES)


@pytest.mark.parametrize(
    ("name", "shown"), [("tsx", "TypeScript with JSX"), ("sh", "Bash"), ("C#", "C#"), ("Java", "Java")]
)
def test_a_language_that_is_known_but_not_run_is_refused_by_its_name(name: str, shown: str) -> None:
    with pytest.raises(UnknownLanguage) as caught:
        resolve(name)
    assert caught.value.what == f"runvisor does not run {shown} yet"


@given(st.text() | st.sampled_from(["auto", "", "  "]))
def test_any_other_name_raises_unknown_language_and_nothing_else(name: str) -> None:
    with contextlib.suppress(UnknownLanguage):
        assert resolve(name) in LANGUAGES
