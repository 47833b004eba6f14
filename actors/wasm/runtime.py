"""The WebAssembly runtime: modules, WAT, C and record programs, in a jailed engine process per principal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final

from runvisor.actors.artifacts import shared_artifacts
from runvisor.actors.jail.egress.records import EgressRecord
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.standing import engine_layers
from runvisor.actors.runtime import Load, PoolSize, Probe, Watch, called_off
from runvisor.actors.settings import RuntimeSettings
from runvisor.actors.user_cache import cache_folder
from runvisor.actors.wasm.compilers import compilers
from runvisor.actors.wasm.compilers.compilers import Compilers
from runvisor.actors.wasm.components.execution import ComponentRun
from runvisor.actors.wasm.cpython import execution as cpython
from runvisor.actors.wasm.executions import Module, ModuleRun, Outcome, on_engine, on_own_engine
from runvisor.actors.wasm.folders import needs_files, shown_files
from runvisor.actors.wasm.gate import Gate
from runvisor.actors.wasm.javascript import work as javascript
from runvisor.actors.wasm.library import Api, api_for, untested
from runvisor.actors.wasm.principals import Errand, Principals
from runvisor.actors.wasm.record import RecordPrograms, RecordRun
from runvisor.actors.wasm.wasi.guard import Denial
from runvisor.policies.errors import DiskLimitExceeded, GuestError, InvalidTask, LimitExceeded
from runvisor.policies.record_answers import check_task
from runvisor.policies.record_inputs import RecordInputs
from runvisor.policies.records import LANGUAGE
from runvisor.policies.result import Isolation, Result, Usage
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant

_MEMORY: Final = "wasm memory sandbox"
_NOTHING: Final = "WASI with nothing granted"
_GUARDED: Final = "WASI with a guard on every path"
_ENFORCED: Final = ("memory_bytes", "timeout_s", "output_bytes", "disk_bytes", "processes")


OnDecision = Callable[[str, Mapping[str, Any]], None]
"""Called with the principal and what was decided, in the thread of the execution or of the broker's records."""


def _ignore(principal: str, record: Mapping[str, Any]) -> None:
    """Record nothing."""


class WasmRuntime:
    """Fresh stores in engine processes that no two principals share.

    ``wasm/module`` runs ``wasm``, ``wat`` and what is compiled to it: ``c``, ``cpp``,
    ``zig``, ``go`` and ``rust``; ``wasm/record`` runs ``c-record``, ``wasm/cpython``
    runs ``python``, and ``wasm/quickjs`` runs ``javascript``; these two where
    their images were built. ``wasm/component`` runs ``component``.

    Args:
        size: ``maximum`` bounds the executions at once.
        api: How wasmtime is used; None is by its version.
        hosts: The operator's table of hosts whose places are pinned (see `EgressBroker`).
    """

    name = "wasm"

    def __init__(
        self, size: PoolSize | None = None, api: Api | None = None, *, hosts: Mapping[str, str] | None = None
    ) -> None:
        size = size or PoolSize()
        self.on_denial: OnDecision = _ignore
        self.on_connection: OnDecision = _ignore
        self._gate = Gate(size)
        artifacts = shared_artifacts(cache_folder())
        self._engines = Principals(size, artifacts, api, hosts)
        self._compilers = Compilers(artifacts)
        self._programs = RecordPrograms(self._compilers)

    def probe(self) -> Probe:
        """See `Runtime.probe`: tries the jail, and a tiny module of ours."""
        probe = probe_jail(self.name)
        if not probe.available:
            return probe
        try:
            found = _try_wasmtime()
        except Exception as error:  # whatever a broken library raises, it cannot run here
            detail = f"wasmtime does not run: {type(error).__name__}: {error}"
            return Probe(self.name, False, detail, "pip install --force-reinstall wasmtime")
        lacks = dict(self._compilers.missing())
        record = lacks.pop(LANGUAGE, None)
        missing = tuple(
            (variant, why)
            for variant, why in (
                ("record", record and record.sentence("C")),
                ("cpython", untested(found) if api_for(found) == "public" else cpython.unavailable()),
                ("quickjs", untested(found) if api_for(found) == "public" else javascript.unavailable()),
                ("component", untested(found) if api_for(found) == "public" else None),
            )
            if why
        )
        notes = "".join(f"; no {language} ({lack.remedy})" for language, lack in lacks.items())
        if api_for(found) == "public":
            notes += f"; {untested(found)}"
        return Probe(self.name, True, f"wasmtime {found}; {probe.detail}{notes}", "", missing, probe.missing_layers)

    def start(self) -> None:
        """See `Runtime.start`."""
        self._engines.start()

    def execute(self, task: Task, variant: str, grant: Grant, watch: Watch) -> Result:
        """See `Runtime.execute`. The clock of ``timeout_s`` runs while the guest does, not while it is compiled.

        A module's output is passed on as it comes. A cancellation is honoured at the guest's next loop or call.

        Raises:
            Cancelled: It was called off while it waited for a place.
            InvalidTask: The task is not for this variant, or its inputs do not fit the module.
            ConfigError: The language's compiler is not installed.
            CapacityError: No place, engine or compiler came free in time.
            WorkerError: Our side failed.
        """
        languages = _LANGUAGES.get(variant, ())
        if task.language not in languages:
            raise InvalidTask(
                f"wasm/{variant} does not run {task.language}", "language", f"use {', '.join(languages) or 'a variant'}"
            )
        asked = time.perf_counter()
        self._gate.take(watch.cancellation)
        queue_s = time.perf_counter() - asked
        try:
            if watch.cancellation.cancelled:
                outcome, bytes_in = Outcome(), 0
            elif variant == "record":
                outcome, bytes_in = self._run_records(task, grant, watch.started)
            elif variant == "cpython":
                run = cpython.PythonRun(task, grant.permissions, watch)
                outcome = on_engine(self._engines, grant.principal, run.memory_bytes, run)
                bytes_in = run.input_bytes
            elif variant == "component":
                call = ComponentRun(task, grant.permissions, watch)
                outcome = on_engine(self._engines, grant.principal, grant.permissions.memory_bytes, call)
                bytes_in = len(task.code) + call.input_bytes
            elif variant == "quickjs":
                outcome, bytes_in = self._run_javascript(task, grant, watch)
            else:
                outcome, bytes_in = self._run_module(task, grant, watch)
        except DiskLimitExceeded:  # refused before it began, as by every runtime
            raise
        except (GuestError, LimitExceeded) as error:
            outcome, bytes_in = Outcome(error=error, was_cold=True), len(task.code)
        finally:
            self._gate.give_back()
        for stream, data, told in zip((1, 2), (outcome.stdout, outcome.stderr), outcome.told, strict=True):
            if len(data) > told:
                watch.output(stream, data[told:])
        if watch.cancellation.cancelled:
            outcome = replace(outcome, value=None, error=called_off())
        return self._result(task, variant, grant, outcome, queue_s, bytes_in)

    def load(self) -> Load:
        """See `Runtime.load`."""
        return self._gate.load()

    def close(self) -> None:
        """See `Runtime.close`."""
        self._engines.close()
        self._compilers.close()

    def _run_module(self, task: Task, grant: Grant, watch: Watch) -> tuple[Outcome, int]:
        was_compiled = False
        if task.language in compilers.LANGUAGES:
            code = self._compilers.get(task.language, task.source)
            if code is None:
                was_compiled, code = True, self._compilers.compile(task.language, task.source)
            module = Module.of(code, is_text=False)
        elif task.language == "wat":
            module = Module.of(task.source, is_text=True)
        elif isinstance(task.code, bytes):
            module = Module.of(task.code, is_text=False)
        else:
            raise InvalidTask("a wasm module is bytes, not text", "code", "pass bytes, or use the language 'wat'")
        permissions = grant.permissions
        run = ModuleRun(module, task.inputs, permissions, watch.started, watch)
        run.on_denial = partial(self._tell_denial, task, grant)
        if needs_files(task, permissions):
            run.files = shown_files(permissions.filesystem, task.folder)
        if run.files is not None or permissions.network.allowed_hosts:
            on_connection = partial(self._tell_connection, task, grant)
            errand = Errand(permissions, watch.cancellation, task.files, task.folder, on_connection)
            outcome = on_own_engine(self._engines, errand, run)
        else:
            outcome = on_engine(self._engines, grant.principal, permissions.memory_bytes, run)
        return (replace(outcome, was_cold=True) if was_compiled else outcome), len(task.code) + run.input_bytes

    def _tell_connection(self, task: Task, grant: Grant, record: EgressRecord) -> None:
        self.on_connection(grant.principal, {"label": task.label, **record.to_message()})

    def _tell_denial(self, task: Task, grant: Grant, denial: Denial) -> None:
        self.on_denial(grant.principal, {"label": task.label, **denial.to_message()})

    def _run_javascript(self, task: Task, grant: Grant, watch: Watch) -> tuple[Outcome, int]:
        run = javascript.JavaScriptRun(task.source, task.inputs, grant.permissions, watch)
        outcome = on_engine(self._engines, grant.principal, grant.permissions.memory_bytes, run)
        return outcome, len(task.code) + run.input_bytes

    def _run_records(self, task: Task, grant: Grant, on_started: Callable[[], None]) -> tuple[Outcome, int]:
        inputs = RecordInputs.of(task.inputs, task.source)
        program, unit = self._programs.parse(task.source, inputs.records.dtype, collects=inputs.collects)
        program.initial_state(inputs.state)  # refuses what does not fit before anything is compiled
        check_task(program, inputs, grant.permissions.memory_bytes, grant.permissions.output_bytes)
        module, was_compiled = self._programs.compile(unit)
        run = RecordRun(program, module, inputs, grant.permissions, on_started)
        outcome = on_engine(self._engines, grant.principal, run.memory_bytes, run)
        bytes_in = len(task.code) + inputs.records.nbytes
        return (replace(outcome, was_cold=True) if was_compiled else outcome), bytes_in

    def _result(
        self, task: Task, variant: str, grant: Grant, outcome: Outcome, queue_s: float, bytes_in: int
    ) -> Result:
        return Result(
            isolation=_isolation(
                grant.principal,
                grant.narrowed,
                outcome.was_alone,
                variant in _WITH_ENVIRONMENT,
                grant.permissions.instructions is not None,
                tuple(
                    name
                    for name, items in (
                        ("filesystem", grant.permissions.filesystem.read + grant.permissions.filesystem.write),
                        ("network", grant.permissions.network.allowed_hosts),
                    )
                    if items
                ),
                grant.permissions.deterministic,
            ),
            value=outcome.value,
            stdout=outcome.stdout.decode(errors="replace") if outcome.stdout else "",
            stderr=outcome.stderr.decode(errors="replace") if outcome.stderr else "",
            error=outcome.error,
            usage=Usage(
                wall_s=outcome.wall_s,
                queue_s=queue_s,
                cpu_s=outcome.cpu_s,
                peak_memory_bytes=outcome.memory_bytes,
                instructions=outcome.instructions,
                bytes_in=bytes_in,
                bytes_out=outcome.value_bytes + len(outcome.stdout) + len(outcome.stderr),
                start_kind="cold" if outcome.was_cold else "warm",
            ),
            runtime=self.name,
            variant=variant,
            language=task.language,
            files=outcome.files,
            refused_files=outcome.refused_files,
        )


_LANGUAGES: Final = {
    "module": ("wasm", "wat", *compilers.LANGUAGES),
    "record": (LANGUAGE,),
    "cpython": ("python",),
    "quickjs": ("javascript",),
    "component": ("component",),
}
_WITH_ENVIRONMENT: Final = ("module", "cpython")


@lru_cache(maxsize=256)
def _isolation(
    principal: str,
    narrowed: tuple[str, ...],
    was_alone: bool,
    has_environment: bool,
    is_metered: bool,
    granted: tuple[str, ...],
    is_deterministic: bool,
) -> Isolation:
    enforced = _ENFORCED + ("env",) * has_environment + ("instructions",) * is_metered + granted
    enforced += ("deterministic",) * is_deterministic
    return Isolation(
        engine="wasmtime",
        layers=(_MEMORY, _GUARDED if "filesystem" in granted else _NOTHING, *engine_layers()),
        limits_enforced=enforced,
        no_spawn=True,
        network="allow-list" if "network" in granted else "none",
        accel="jit",
        narrowed=narrowed,
        shared_with=() if was_alone else (f"other executions of {principal} in the same engine process",),
    )


def _try_wasmtime() -> str:
    """Run a tiny module of ours, and return wasmtime's version."""
    from importlib.metadata import version

    import wasmtime

    store = wasmtime.Store(wasmtime.Engine())
    module = wasmtime.Module(store.engine, '(module (func (export "f") (result i32) (i32.const 42)))')
    function = wasmtime.Instance(store, module, []).exports(store)["f"]
    if not isinstance(function, wasmtime.Func) or function(store) != 42:
        raise RuntimeError("it gave a wrong answer")
    return version("wasmtime")


def create(size: PoolSize, settings: RuntimeSettings) -> WasmRuntime:
    """Make the runtime as the operator wants it."""
    return WasmRuntime(size, hosts=settings.hosts)
