"""A process that serves leaves alone what it started with."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc
from runvisor.actors.garbage import settle
settle()
print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 1000)
"""


def test_what_was_there_at_the_start_is_not_walked_through_again() -> None:
    said = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.split() == ["True", "True"]
