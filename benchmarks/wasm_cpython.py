"""How long does a fresh Python inside WebAssembly take, beside a fresh native one?

``python -m benchmarks.wasm_cpython``; the image must be built (``scripts/build-images cpython``).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from benchmarks.measure import Contender, interleave, report, summarise, timed
from runvisor import Supervisor
from runvisor.actors.python.runtime import PythonRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.cpython import execution
from runvisor.actors.wasm.runtime import WasmRuntime
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

CODE = "1 + 1"
_ENGINE = "wasm/cpython, in the engine process (CPU)"
_REFERENCE = "python -c"
_ONLY_NATIVE = "import os\n1 + 1"
"""Not portable, so that the scheduler has no choice."""


def main() -> int:
    """Measure, print and keep the figures."""
    if (why := execution.unavailable()) is not None:
        print(why, file=sys.stderr)
        return 2
    wasm, native = WasmRuntime(PoolSize(maximum=2)), PythonRuntime(PoolSize(minimum=4, maximum=8), profile="bare")
    wasm.start()
    native.start()
    in_wasm, in_native = _runner(wasm, "cpython"), _runner(native, "native")
    try:
        with Supervisor.start() as supervisor:

            def counted() -> None:
                limits = Permissions(instructions=10**10)
                assert supervisor.run(CODE, "python", permissions=limits).value == 2

            def through_pool() -> None:
                assert supervisor.run(_ONLY_NATIVE, "python").value == 2

            contenders: dict[str, Contender] = {
                _ENGINE: lambda count: [in_wasm().usage.cpu_s or 0.0 for _ in range(count)],
                "wasm/cpython": timed(lambda: _check(in_wasm())),
                "python/native, bare profile": timed(lambda: _check(in_native())),
                "wasm/cpython through the pool, counting instructions": timed(counted),
                "python/native through the pool": timed(through_pool),
                _REFERENCE: timed(lambda: subprocess.run([sys.executable, "-c", CODE], check=True)),
            }
            for contender in contenders.values():
                contender(3)
            times = interleave(
                contenders,
                rounds=60,
                pauses_s=dict.fromkeys(contenders, 0.02),
                bursts={_ENGINE: 5, "wasm/cpython": 5, "wasm/cpython through the pool, counting instructions": 5},
            )
    finally:
        wasm.close()
        native.close()
    report("fresh python in wasm", summarise(times, _REFERENCE, {_ENGINE: 3.0}), _REFERENCE)
    return 0


def _runner(runtime: WasmRuntime | PythonRuntime, variant: str) -> Callable[[], Result]:
    task = Task(CODE, "python")
    grant = Grant("benchmark", Trust.UNTRUSTED, task.permissions)
    return lambda: runtime.execute(task, variant, grant, Watch())


def _check(result: Result) -> None:
    assert result.value == 2, result.error


if __name__ == "__main__":
    sys.exit(main())
