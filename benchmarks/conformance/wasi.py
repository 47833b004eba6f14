"""Does WASI preview 1 here pass the public test suite?

Run it with ``python -m benchmarks.conformance.wasi FOLDER``, where the folder is a
checkout of the suite (see README.md here). Every module runs as a task of the wasm
runtime, jail and all, with its folder granted by a pattern, so that the guard decides
about each path.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.errors import RunvisorError
from runvisor.policies.permissions import Filesystem, MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

PREVIEW: Final = "wasm32-wasip1"
_KNOWN: Final = {"args", "env", "root", "exit_code", "stdout", "stderr"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one module."""

    suite: str
    name: str
    outcome: str
    """``passed``, ``failed`` or ``skipped``."""
    reason: str = ""


def modules(folder: Path) -> list[Path]:
    """Return the suite's modules for preview 1."""
    return sorted(path for path in folder.rglob("*.wasm") if PREVIEW in path.parts)


def verdicts(folder: Path) -> Iterator[Verdict]:
    """Run every module of the suite.

    Args:
        folder: A checkout of the suite.
    """
    runtime = WasmRuntime(PoolSize(maximum=2))
    runtime.start()
    try:
        for path in modules(folder):
            yield _judge(runtime, path)
    finally:
        runtime.close()


def _judge(runtime: WasmRuntime, path: Path) -> Verdict:
    suite = path.relative_to(path.parents[3]).parts[0]
    specification = path.with_suffix(".json")
    wanted: dict[str, Any] = json.loads(specification.read_text()) if specification.exists() else {}
    if unknown := wanted.keys() - _KNOWN:
        return Verdict(suite, path.stem, "skipped", f"it asks for {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, "root").resolve()
        if root := wanted.get("root"):
            shutil.copytree(path.parent / root, place)
            place.chmod(0o755)
        permissions = Permissions(
            filesystem=Filesystem(write=(f"{place}/**",) if root else ()),
            env=wanted.get("env", {}),
            timeout_s=30.0,
            memory_bytes=256 * MiB,
        )
        inputs = {"args": wanted.get("args", [])}
        task = Task(path.read_bytes(), "wasm", inputs, permissions, Trust.VERIFIED, folder=str(place) if root else "")
        try:
            result = runtime.execute(task, "module", Grant("suite", Trust.VERIFIED, permissions), Watch())
        except RunvisorError as error:
            return Verdict(suite, path.stem, "failed", f"{type(error).__name__}: {error}")
    code = int(result.error.details.get("exit_code", -1)) if result.error is not None else 0
    if code != wanted.get("exit_code", 0):
        said = " ".join(result.stderr.split())[:200]
        return Verdict(suite, path.stem, "failed", f"{result.error or 'it ended with 0'} {said}")
    for stream in ("stdout", "stderr"):
        if stream in wanted and getattr(result, stream) != wanted[stream]:
            return Verdict(suite, path.stem, "failed", f"{stream} is {getattr(result, stream)[:100]!r}")
    return Verdict(suite, path.stem, "passed")


def main(folder: str) -> int:
    """Print a table; return 1 if a module failed."""
    counts: Counter[tuple[str, str]] = Counter()
    for verdict in verdicts(Path(folder)):
        counts[verdict.suite, verdict.outcome] += 1
        counts["all", verdict.outcome] += 1
        if verdict.outcome != "passed":
            print(f"{verdict.outcome}: {verdict.suite}/{verdict.name}: {verdict.reason}")
    print(f"{'suite':<16} {'passed':>7} {'failed':>7} {'skipped':>8}")
    for suite in sorted({suite for suite, _ in counts}):
        numbers = [counts[suite, outcome] for outcome in ("passed", "failed", "skipped")]
        print(f"{suite:<16} {numbers[0]:>7} {numbers[1]:>7} {numbers[2]:>8}")
    return 1 if counts["all", "failed"] or not counts["all", "passed"] else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
