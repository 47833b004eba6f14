"""What a path pattern names."""

from __future__ import annotations

import contextlib
import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import InvalidPermissions
from runvisor.policies.globs import PathPattern

names = st.text("ab.*?[]!-^\\", min_size=1, max_size=8)
paths = st.text("ab.-/!^]", min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("pattern", "path", "meant"),
    [
        ("/d/*", "a.csv", True),
        ("/d/*", "x/a.csv", False),
        ("/d/**", "x/y/a.csv", True),
        ("/d/**/*.csv", "a.csv", True),
        ("/d/**/*.csv", "x/y/a.csv", True),
        ("/d/*/out.txt", "x/out.txt", True),
        ("/d/*/out.txt", "out.txt", False),
        ("/d/[ab]?.txt", "a1.txt", True),
        ("/d/[!ab].txt", "c.txt", True),
        ("/d/[!ab].txt", "/.txt", False),
        ("/d/a.c*", "abc", False),
        ("/d/.*", ".env", True),
    ],
)
def test_wildcards_stay_inside_a_name_and_two_stars_cross_folders(pattern: str, path: str, meant: bool) -> None:
    assert PathPattern.parse(pattern).matches(path) is meant


@pytest.mark.parametrize("text", ["data/*", "/a/../b", "/", "/*", "/**", "", "./x"])
def test_what_is_relative_climbs_or_names_everything_is_refused(text: str) -> None:
    with pytest.raises(InvalidPermissions, match=r"absolute|whole machine"):
        PathPattern.parse(text, "filesystem.read[0]")


@given(names, paths)
def test_no_wild_name_matches_across_a_slash(name: str, path: str) -> None:
    pattern = PathPattern.parse(f"/d/?{name.replace('**', '*')}")
    assert not ("/" in path and pattern.matches(path))


@given(st.text("ab.*?", min_size=1, max_size=6).filter(lambda name: "**" not in name), st.text("ab.", max_size=8))
def test_inside_one_name_it_agrees_with_fnmatch(name: str, path: str) -> None:
    if name in (".", "..") or not set("*?") & set(name):
        return
    expected = re.fullmatch(fnmatch.translate(name), path) is not None
    assert PathPattern.parse(f"/d/{name}").matches(path) is expected


@given(names)
def test_any_text_parses_or_is_refused_with_a_typed_error(name: str) -> None:
    with contextlib.suppress(InvalidPermissions):
        PathPattern.parse("/d/" + name).matches("a/b")
