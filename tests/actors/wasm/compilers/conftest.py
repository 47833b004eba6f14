"""Compilers without an engine behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.wasm.compilers.compilers import TOOLCHAINS, Compilers
from runvisor.actors.wasm.compilers.toolchain import Toolchain

Compile = Callable[[str, str], bytes]


def toolchain_of(language: str) -> Toolchain:
    """Return a language's toolchain; skips where it is missing."""
    (toolchain,) = (toolchain for toolchain in TOOLCHAINS if toolchain.language == language)
    if lack := toolchain.probe():
        pytest.skip(lack.sentence(language))
    return toolchain


@pytest.fixture(scope="session")
def compile_text() -> Iterator[Compile]:
    """Compile a text and keep nothing for later runs."""
    if not probe_jail("test").available:
        pytest.skip(probe_jail("test").detail)
    compilers = Compilers()

    def compile_text(language: str, code: str) -> bytes:
        toolchain_of(language)
        return compilers.compile(language, code)

    yield compile_text
    compilers.close()
