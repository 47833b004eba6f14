"""How fast are process sandboxes, session cells and JSON in V8, beside what people use today?

Run it with ``python -m benchmarks.process_sandboxes``. Needs the ``bench``
extra; bubblewrap, deno and node take part where they are installed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.first_answer import Parts, job, jupyter, python_job, v8_job, void
from benchmarks.measure import Contender, apart, interleave, report, summarise, timed
from runvisor.actors import registry
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.runtime import Cell, PoolSize, Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.policies.values import Packed, pack

ROUNDS = 100
ROWS = [{"id": n, "name": f"row {n}", "value": n * 1.5, "tags": ["a", "b"]} for n in range(2000)]
TEXT_TRANSFORM = (
    "JSON.stringify(JSON.parse(inputs).filter(r => r.id % 2).map(r => ({ ...r, value: r.value * 2, tag: r.tags[0] })))"
)
ROWS_TRANSFORM = "inputs.filter(r => r.id % 2).map(r => ({ ...r, value: r.value * 2, tag: r.tags[0] }))"
SCRIPT = f"const inputs = {json.dumps(json.dumps(ROWS))};\nconsole.log({TEXT_TRANSFORM}.length)"


def text_job() -> Parts:
    """JSON text in and out."""
    return job("v8", TEXT_TRANSFORM, "javascript", "isolate", json.dumps(ROWS))


def rows_job() -> Parts:
    """Rows in and out, as values."""
    return job("v8", ROWS_TRANSFORM, "javascript", "isolate", ROWS)


def python_cell() -> Parts:
    """A cell of a Python session."""
    return cell("python", "python", "native", "x = 41", "x + 1")


def v8_cell() -> Parts:
    """A cell of a JavaScript session."""
    return cell("v8", "javascript", "isolate", "var x = 41", "x + 1")


def cell(name: str, language: str, variant: str, first: str, then: str) -> Parts:
    """Open a session; return a call that runs one cell in it, and its end."""
    runtime = registry.create(name, PoolSize(minimum=1, maximum=2))
    assert isinstance(runtime, JailedRuntime)
    runtime.start()
    grant = Grant("bench", Trust.UNTRUSTED, Permissions())
    session = runtime.open_session(Task("-", language), variant, grant)
    session.run(Cell(first, Packed(pack(None)), "", None), Watch())
    again = Cell(then, Packed(pack(None)), "", None)

    def call() -> None:
        result = session.run(again, Watch())
        if result.error is not None:
            raise result.error

    def end() -> None:
        session.close()
        runtime.close()

    return call, end


def command(*arguments: str) -> Callable[[], None]:
    """Return a call that runs a program to its end."""
    return lambda: void(subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))


def rivals(folder: Path) -> dict[str, Callable[[], None]]:
    """Return the programs that are installed here, and what each is to do."""
    script = folder / "transform.js"
    script.write_text(SCRIPT)
    found = {"python -c '1+1'": command(sys.executable, "-c", "1+1")}
    if bwrap := shutil.which("bwrap"):
        jail = (
            bwrap,
            "--unshare-all",
            "--die-with-parent",
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--tmpfs",
            "/tmp",
        )
        found["bubblewrap + python -c '1+1'"] = command(*jail, sys.executable, "-c", "1+1")
    if deno := shutil.which("deno"):
        found["deno run, 2,000 rows"] = command(deno, "run", "--no-remote", "--quiet", str(script))
    if node := shutil.which("node"):
        found["node, 2,000 rows"] = command(node, str(script))
    return found


def main() -> None:
    """Measure and report."""
    jobs: dict[str, Callable[[], Parts]] = {
        "python science, fresh": python_job,
        "v8, fresh": v8_job,
        "v8, 2,000 rows as JSON text": text_job,
        "v8, 2,000 rows as values": rows_job,
        "python session cell": python_cell,
        "v8 session cell": v8_cell,
    }
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        contenders: dict[str, Contender] = {name: stack.enter_context(apart(make)) for name, make in jobs.items()}
        kernel, stop_kernel = jupyter()
        stack.callback(stop_kernel)
        contenders["warm Jupyter kernel"] = timed(kernel)
        for name, call in rivals(Path(folder)).items():
            contenders[name] = timed(call)
        fresh = [name for name in jobs if "cell" not in name]
        times = interleave(
            contenders,
            rounds=ROUNDS,
            pauses_s=dict.fromkeys(fresh, 0.1),  # a load that the refill sustains
            repeats={name: ROUNDS // 5 for name in contenders if name not in jobs},
            bursts={"python session cell": 100, "v8 session cell": 100},
        )
    bars = {
        "python science, fresh": 1.5,
        "v8, fresh": 1.5,
        "v8, 2,000 rows as JSON text": 4.0,
        "python session cell": 0.1,
        "v8 session cell": 0.1,
    }
    rows = summarise(times, "python science, fresh", bars)
    p99 = next(row.p99_ms for row in rows if row.name == "python science, fresh")
    extra = {"python science p99": f"{p99:.2f} ms, bar 5 ms: {'met' if p99 <= 5 else 'MISSED'}"}
    report("process sandboxes", rows, "python science, fresh", extra)


if __name__ == "__main__":
    main()
