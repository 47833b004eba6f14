"""Fixtures for tests that need Ray."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One embedded Ray for the whole test session, or the one that runs already."""
    if not ray.is_initialized():
        ray.init(
            address="local",
            namespace="runvisor",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    yield
    ray.shutdown()
