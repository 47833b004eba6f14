"""The QuickJS image for tests: built into the user's cache by the first that needs it."""

from __future__ import annotations

import pytest

from runvisor.actors.wasm.images.store import build_image, find_image
from runvisor.policies.errors import RunvisorError


def require_image(name: str = "quickjs") -> None:
    """Have an image, or skip with the reason why there is none."""
    if find_image(name) is None:
        try:
            build_image(name, lambda doing, done: None)
        except RunvisorError as error:
            pytest.skip(f"the image {name} is not built and cannot be: {error}")
