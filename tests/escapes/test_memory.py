"""Memory limits hold for every kind of memory, and the message says which limit and how much."""

from __future__ import annotations

from typing import Final

import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.errors import GuestException
from runvisor.policies.permissions import MiB, Permissions
from tests.escapes.attack import Attack
from tests.escapes.range import Range
from tests.standing import needs_memory_cgroup

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
GRANT_BYTES: Final = 96 * MiB
HOST_MAY_LOSE_BYTES: Final = GRANT_BYTES + 64 * MiB

_FILL_BUFFERS: Final = "const kept = []; for (;;) {{ const part = {}; new Uint8Array({}).fill(1); kept.push(part); }}"
HOGS: Final = {
    "python": {
        "objects": "kept = []\nwhile True: kept.append([object() for _ in range(1000)])",
        "bytes": "kept = []\nwhile True: kept.append(b'x' * (4 << 20))",
        "numpy": "import numpy\nkept = []\nwhile True: kept.append(numpy.ones(1 << 19))",
        "files in /tmp": "for n in range(60): open(f'/tmp/{n}', 'wb').write(b'x' * (2 << 20))",
        "shared mappings": "import mmap\nkept = []\n"
        "try:\n    while True:\n        kept.append(mmap.mmap(-1, 1 << 20))\n        kept[-1].write(b'x' * (1 << 20))\n"
        "except OSError:\n    raise MemoryError from None",
    },
    "javascript": {
        "objects": "const kept = []; for (;;) kept.push({ a: [1.5, kept.length] });",
        "texts": "const kept = []; for (;;) kept.push([...('x'.repeat(1 << 16) + kept.length)].join(''));",
        "array buffers": _FILL_BUFFERS.format("new ArrayBuffer(4 << 20)", "part"),
        "shared buffers": _FILL_BUFFERS.format("new SharedArrayBuffer(4 << 20)", "part"),
        "wasm memory": _FILL_BUFFERS.format("new WebAssembly.Memory({ initial: 64 })", "part.buffer"),
        "one wasm memory that grows": "const memory = new WebAssembly.Memory({ initial: 1 });"
        " for (;;) { memory.grow(64); new Uint8Array(memory.buffer).fill(1); }",
    },
}
CASES: Final = [
    pytest.param(language, kind, marks=[needs_memory_cgroup] if kind == "files in /tmp" else [])
    for language, hogs in HOGS.items()
    for kind in hogs
]


@pytest.mark.parametrize(("language", "kind"), CASES)
def test_the_host_loses_no_more_than_the_grant_and_64_mib(
    python_range: Range, v8_range: Range, language: str, kind: str
) -> None:
    permissions = {"memory_bytes": GRANT_BYTES, "disk_bytes": 256 * MiB, "timeout_s": 20.0}
    attack = Attack(kind, language, HOGS[language][kind], "limit memory_bytes", permissions)
    aftermath = (python_range if language == "python" else v8_range).run(attack)
    assert (aftermath.ending, aftermath.harm) == ("limit memory_bytes", []), aftermath.result
    assert "96 MiB" in str(aftermath.result.error)
    peak_bytes = aftermath.result.usage.peak_memory_bytes
    # What was killed and reaped before anyone looked has no peak any more; its cgroup's limit held until then.
    assert peak_bytes is None or peak_bytes <= HOST_MAY_LOSE_BYTES


def test_a_library_that_exits_for_want_of_memory_is_told_apart_from_a_task_that_does(python_range: Range) -> None:
    """In the bare profile numpy is imported by the task, and OpenBLAS calls exit(3) when it is refused its buffers."""
    permissions = {"memory_bytes": 64 * MiB, "timeout_s": 20.0}
    attack = Attack("import", "python", "import numpy", "limit memory_bytes", permissions)
    aftermath = python_range.run(attack)
    assert (aftermath.ending, aftermath.harm) == ("limit memory_bytes", []), aftermath.result
    assert python_range.execute("import numpy\n1", "python", Permissions(memory_bytes=96 * MiB)).value == 1
    assert isinstance(python_range.execute("import os; os._exit(1)", "python", Permissions()).error, GuestException)
