"""Private memory is gathered in huge pages, and its content stays what it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runvisor.actors.jail.huge_pages import collapse_private_memory

PROGRAM = """
from pathlib import Path
from runvisor.actors.jail.huge_pages import collapse_private_memory
blocks = [bytes([n]) * (1 << 20) for n in range(64)]
def huge():
    return sum(int(l.split()[1]) for l in Path("/proc/self/smaps").read_text().splitlines() if l.startswith("AnonHuge"))
before = huge()
regions = collapse_private_memory()
assert all(block == bytes([n]) * (1 << 20) for n, block in enumerate(blocks))
print(regions, huge() - before)
"""


def test_it_gathers_what_was_written_and_changes_nothing() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    regions, huge_kib = map(int, ran.stdout.split())
    if not regions:
        pytest.skip("this kernel has no MADV_COLLAPSE, or no huge pages are free")
    assert huge_kib >= 2048


def test_other_mappings_are_left_alone(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "100000000-140000000 r-xp 00000000 00:00 0 \n"
        "200000000-240000000 rw-p 00000000 08:01 77 /lib/x.so\n"
        "300000000-340000000 rw-s 00000000 00:00 0 \n"
        "400000000-400001000 rw-p 00000000 00:00 0 \n"
    )
    assert collapse_private_memory(maps) == 0
