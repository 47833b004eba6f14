"""Parsing in a process whose other threads parse too."""

from __future__ import annotations

import ast
import gc
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from runvisor.policies.python_syntax import UNPARSABLE, parse_python

SOURCE = "def f(a):\n    return [x * (1 + x) for x in a if x > 2]\n" * 4


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """Let the collector run, and other threads with it, many times while one tree is built."""
    before = gc.get_threshold()
    gc.set_threshold(20)
    yield
    gc.set_threshold(*before)


def give_way(_phase: str, _info: dict[str, int]) -> None:
    time.sleep(0)


@pytest.mark.usefixtures("eager_collector")
def test_threads_parse_at_once() -> None:
    gc.callbacks.append(give_way)
    try:
        with ThreadPoolExecutor(4) as threads:
            trees = list(threads.map(parse_python, [SOURCE] * 200))
    finally:
        gc.callbacks.remove(give_way)
    assert {len(tree.body) for tree in trees} == {4}


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="each parse has a counter of its own since 3.13")
@pytest.mark.usefixtures("eager_collector")
def test_a_parse_that_another_one_disturbed_is_tried_again() -> None:
    disturbances = [2]

    def disturb(_phase: str, _info: dict[str, int]) -> None:
        if disturbances[0]:
            disturbances[0] -= 1
            ast.parse("(" * 20 + "x" + ")" * 20)

    gc.callbacks.append(disturb)
    try:
        assert len(parse_python(SOURCE).body) == 4
    finally:
        gc.callbacks.remove(disturb)
    assert disturbances == [0]


@pytest.mark.parametrize("source", ["x =", "a\0b", "-" * 100_000 + "1", "(" * 1000])
def test_what_cannot_be_parsed_raises_one_of_a_few_errors(source: str) -> None:
    with pytest.raises(UNPARSABLE):
        parse_python(source)
