"""One science zygote for all tests of the guest."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.python.profiles import SCIENCE
from runvisor.actors.python.runtime import spec_of
from tests.actors.python.driving import Answer, Session, run_task


@pytest.fixture(scope="package")
def science() -> Iterator[Zygote]:
    zygote = Zygote(spec_of(SCIENCE))
    try:
        zygote.start()
        yield zygote
    finally:
        zygote.close()


@pytest.fixture
def task(science: Zygote) -> Callable[..., Answer]:
    return lambda code, inputs=None, **frame: run_task(science, code, inputs, **frame)


@pytest.fixture
def session(science: Zygote) -> Iterator[Session]:
    session = Session(science)
    yield session
    session.close()
