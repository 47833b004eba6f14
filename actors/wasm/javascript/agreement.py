"""What the host's and the engine's side of the arm agree on."""

from __future__ import annotations

from typing import Final

IMAGE: Final = "quickjs"
OPERATION: Final = "javascript"
PLAIN: Final = "quickjs"
METERED: Final = "quickjs-metered"
"""The profiles that the image is compiled for; the second counts instructions."""
FILENAME: Final = "task.js"
"""What the task's code is called in stacks; the image knows it too."""


def image_name(profile: str) -> str:
    """Name the image as it is loaded for a profile."""
    return f"{IMAGE}:{profile}"
