"""How long from a piece of JavaScript to its result on QuickJS inside wasm, beside V8 and what people use today?

Run it with ``python -m benchmarks.wasm_quickjs``. Needs root and the image
(``scripts/build-images quickjs``); node and the package quickjs from PyPI take
part where they are installed. The bar is for the CPU time that a jailed engine
counts from a request to its reply, as for Python in wasm: what a task waits for
there. Its instance was made after the reply before, and its memory is put back
after its own; the contender without a jail and a socket does all of that in turn.
"""

from __future__ import annotations

import gc
import importlib.util
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.first_answer import Parts, job
from benchmarks.measure import Contender, apart, interleave, report, summarise, timed
from benchmarks.process_sandboxes import command
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.images.recipes import remedy
from runvisor.actors.wasm.images.store import find_image, read_image
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

ROUNDS = 60
TINY = "1 + 1"
WORK = "const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2)); fib(20)"
ENGINE = "wasm/quickjs, in the engine process (CPU)"
LIVE = 32
"""Instances alive at once, to measure what each takes."""


class Interpreters:
    """Fresh interpreters of the image, as an engine process makes them."""

    def __init__(self, profile: str = "quickjs") -> None:
        import wasmtime

        from runvisor.actors.wasm import fastpath
        from runvisor.actors.wasm.deadlines import Deadlines
        from runvisor.actors.wasm.engines import Engine
        from runvisor.actors.wasm.fastpath import Frame
        from runvisor.actors.wasm.javascript import guest
        from runvisor.actors.wasm.modules import link_module
        from runvisor.actors.wasm.wasi import Wasi

        self._deadlines = Deadlines(lambda: None)
        self._wasi = Wasi(self._deadlines)
        fastpath.decide_epochs_by(self._deadlines.may_go_on)
        self._engine = Engine(LIVE + 1, self._wasi, profile)
        guest.define(self._engine)
        code, manifest = read_image("quickjs", "quickjs.wasm")
        self._facts = manifest.facts
        module = wasmtime.Module(self._engine.engine, code)
        self._module = link_module(self._engine, module, len(code), is_ours=True)
        self._frame = Frame()

    def begin(self, code: str) -> Any:
        """Make an instance, run a program in it, and return its store."""
        from runvisor.actors.wasm.javascript.guest import Execution

        store = self._engine.store(self._frame, self._deadlines.token())
        request = {
            "code": code,
            "inputs": b"",
            "facts": self._facts,
            "seed": b"benchmrk",
            "timeout_s": 10.0,
            "memory_bytes": 128 << 20,
            "output_bytes": 1 << 20,
        }
        reply = Execution(self._deadlines, self._wasi, store, self._module, request).reply()
        if "error" in reply:
            raise RuntimeError(str(reply["error"]))
        return store


def in_engine() -> Parts:
    """Fresh instance, evaluation, and its end, one after the other."""
    interpreters = Interpreters()
    return (lambda: interpreters.begin(TINY).close()), lambda: None


def tiny_on_wasm() -> Parts:
    """Through the runtime: socket, jailed engine process, and back."""
    return job("wasm", TINY, "javascript", "quickjs")


def engine_cpu(stack: ExitStack) -> Contender:
    """Return the contender that tells what the engine counts for each task."""
    runtime = WasmRuntime(PoolSize(maximum=2))
    runtime.start()
    stack.callback(runtime.close)
    task = Task(TINY, "javascript")
    grant = Grant("bench", Trust.UNTRUSTED, task.permissions)

    def sample(count: int) -> list[float]:
        results = [runtime.execute(task, "quickjs", grant, Watch()) for _ in range(count)]
        assert all(result.value == 2 for result in results), results[0].error
        return [result.usage.cpu_s or 0.0 for result in results]

    sample(3)
    return sample


def tiny_on_v8() -> Parts:
    """The same on the other arm."""
    return job("v8", TINY, "javascript", "isolate")


def work_on_wasm() -> Parts:
    """Some work, where an interpreter is slower."""
    return job("wasm", WORK, "javascript", "quickjs")


def work_on_v8() -> Parts:
    """The same on the other arm."""
    return job("v8", WORK, "javascript", "isolate")


def native(code: str) -> Callable[[], None]:
    """Return a call that evaluates in a fresh context of PyPI's quickjs, in this process, without a sandbox."""
    quickjs: Any = importlib.import_module("quickjs")

    def call() -> None:
        quickjs.Context().eval(code)

    return call


def bytes_per_instance() -> int:
    """Return how much resident memory each instance that has run a tiny program takes, its image shared."""
    interpreters = Interpreters()
    interpreters.begin(TINY).close()
    gc.collect()
    before = _resident_bytes()
    stores = [interpreters.begin(TINY) for _ in range(LIVE)]
    taken = _resident_bytes() - before
    for store in stores:
        store.close()
    return taken // LIVE


def _resident_bytes() -> int:
    """Return anonymous resident memory: pages of the image that nothing wrote to are shared by all."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def main() -> None:
    """Measure and report."""
    if find_image("quickjs") is None:
        raise SystemExit(f"the image quickjs is not built; {remedy('quickjs')}")
    jobs = {
        "fresh + eval + delete, nothing made ahead": in_engine,
        "wasm/quickjs, fresh": tiny_on_wasm,
        "v8/isolate, fresh": tiny_on_v8,
        "wasm/quickjs, fib(20)": work_on_wasm,
        "v8/isolate, fib(20)": work_on_v8,
    }
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {name: stack.enter_context(apart(make)) for name, make in jobs.items()}
        contenders[ENGINE] = engine_cpu(stack)
        if importlib.util.find_spec("quickjs") is not None:
            contenders["quickjs from PyPI, fresh context, no sandbox"] = timed(native(TINY))
            contenders["quickjs from PyPI, fib(20), no sandbox"] = timed(native(WORK))
        if node := shutil.which("node"):
            contenders["node -e"] = timed(command(node, "-e", TINY))
        fast = [name for name in contenders if "v8" not in name and "node" not in name]
        times = interleave(
            contenders,
            rounds=ROUNDS,
            pauses_s={name: 0.1 for name in jobs if "v8" in name},  # a load that the refill sustains
            repeats={"node -e": ROUNDS // 5},
            bursts=dict.fromkeys(fast, 10),
        )
    rows = summarise(times, "wasm/quickjs, fresh", {ENGINE: 0.15})
    extra = {"resident bytes per live instance beyond the image": bytes_per_instance()}
    report("JavaScript on QuickJS", rows, "wasm/quickjs, fresh", extra)


if __name__ == "__main__":
    main()
