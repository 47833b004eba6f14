"""``runvisor doctor``: what runs on this machine, found by running it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from runvisor.actors import registry
from runvisor.actors.runtime import PoolSize, Runtime, Watch
from runvisor.policies.errors import RunvisorError
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from runvisor.supervisor.cli.output import console, print_json

_WAT: Final = '(module (func (export "main") (result i32) (i32.const 42)))'
_RECORD: Final = (
    "struct state { u64 total; };\nint on_record(struct record *r, struct state *s) { s->total += r->n; return 1; }\n"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one runtime."""

    runtime: str
    works: bool
    detail: str
    remedy: str
    first_answer_ms: float | None


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """Probe every runtime by running something real in it; one line each, with the remedy."""
    findings = [_examine(name) for name in registry.names()]
    if as_json:
        print_json({"runtimes": [asdict(finding) for finding in findings]})
    else:
        table = Table("runtime", "works", "found", "remedy", title="runvisor doctor")
        for finding in findings:
            table.add_row(
                finding.runtime,
                Text("yes", style="green") if finding.works else Text("no", style="red"),
                finding.detail
                + (f"; first answer {finding.first_answer_ms:.1f} ms" if finding.first_answer_ms else ""),
                finding.remedy,
            )
        console.print(table)
    raise typer.Exit(0 if all(finding.works for finding in findings) else 5)


def _examine(name: str) -> Finding:
    probe = registry.probe(name)
    if not probe.available:
        return Finding(name, False, probe.detail, probe.remedy, None)
    variants = [f"{variant}: {reason}" for variant, reason in probe.unavailable_variants]
    lacking = "; ".join([*([probe.remedy] if probe.remedy else []), *variants])
    runtime = registry.create(name, PoolSize(minimum=1, maximum=2))
    try:
        runtime.start()
        began = time.monotonic()
        value = _try(runtime)
        answer_ms = (time.monotonic() - began) * 1e3
    except RunvisorError as error:
        return Finding(name, False, error.what, error.remedy or error.where, None)
    finally:
        runtime.close()
    detail = f"{probe.detail}; {_PROGRAMS[name][0] if name in _PROGRAMS else 'a program'} gave {value!r}"
    return Finding(name, True, detail, lacking, round(answer_ms, 2))


def _try(runtime: Runtime) -> Any:
    """Run one small program for real."""
    if runtime.name not in _PROGRAMS:
        return "(no program known)"
    _, code, language, variant, inputs = _PROGRAMS[runtime.name]
    permissions = Permissions(timeout_s=20.0)
    trust = Trust.VERIFIED if runtime.name == "ebpf" else Trust.UNTRUSTED
    task = Task(code, language, inputs() if callable(inputs) else inputs, permissions, trust, "doctor")
    return runtime.execute(task, variant, Grant("doctor", trust, permissions), Watch()).unwrap()


def _records() -> dict[str, Any]:
    import numpy as np

    records = np.zeros(10, [("n", "<u8")])
    records["n"] = range(10)
    return {"records": records}


_PROGRAMS: Final[dict[str, tuple[str, str, str, str, Any]]] = {
    "python": ("6 * 7", "6 * 7", "python", "native", None),
    "v8": ("6 * 7", "6 * 7", "javascript", "isolate", None),
    "wasm": ("a module", _WAT, "wat", "module", None),
    "ebpf": ("a sum in the kernel", _RECORD, "c-record", "record", _records),
}
