"""Small objects lie together, whatever is mapped while they are made."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import bisect, mmap, sys
from contextlib import nullcontext
from runvisor.actors.python.arenas import contiguous_objects
def regions():
    with open("/proc/self/maps") as maps:
        return sorted(tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps)
mapped = []
with contiguous_objects(16 << 20) if sys.argv[1] == "together" else nullcontext():
    objects = [None] * 40_000
    for number in range(len(objects)):
        objects[number] = bytes(200)
        if number % 1000 == 0:  # as an import maps a shared library
            mapped.append(mmap.mmap(-1, 3 << 20, flags=mmap.MAP_SHARED))
starts = [start for start, _ in regions()]
print(len({bisect.bisect(starts, id(thing)) for thing in objects}))
print(sum(end - start for start, end in regions()) - sum(map(len, mapped)) >> 20)
"""


def run(how: str) -> tuple[int, int]:
    """Return in how many regions the objects lie, and how many MiB are mapped in the end."""
    output = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True).stdout
    regions, mib = map(int, output.split())
    return regions, mib


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="the arenas are CPython's")
def test_objects_lie_in_one_stretch_and_what_is_not_used_goes_back() -> None:
    scattered, scattered_mib = run("scattered")
    together, together_mib = run("together")
    assert scattered >= 5
    assert together <= 3  # and arenas that had room before
    assert together_mib <= scattered_mib + 2
