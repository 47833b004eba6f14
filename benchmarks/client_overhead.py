"""What does runvisor itself add to an execution, and what of that is the caller's CPU?

Run it with ``python -m benchmarks.client_overhead``. The reference is a raw Ray actor call that does nothing, in the
same rounds. A row "CPU" is CPU time of the calling thread alone (CLOCK_THREAD_CPUTIME_ID of clock_gettime(2)).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

import ray

from benchmarks.measure import Contender, interleave, report, summarise, timed
from runvisor.policies.result import Result
from runvisor.supervisor.actor import SupervisorOptions
from runvisor.supervisor.client import Supervisor

ROUNDS: Final = 120
BURST: Final = 25
PAUSED_BURST: Final = 3
RAY: Final = "a raw Ray actor call"
CHANNEL: Final = "the channel: ping and pong"
WAT: Final = '(module (func (export "main") (result i32) i32.const 2))'
PROGRAMS: Final = {"python": "1 + 1", "javascript": "1 + 1", "wat": WAT}
CHANNEL_BAR: Final = 0.15


class _Nothing:
    def do(self) -> None:
        return None


def _around(run: Callable[[], Result]) -> Contender:
    """Return a contender that times what lies around the guest's own time and its wait for an instance."""

    def sample(count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.perf_counter()
            usage = run().usage
            times.append(time.perf_counter() - began - usage.wall_s - usage.queue_s)
        return times

    return sample


def _cpu(run: Callable[[], Result]) -> Contender:
    def sample(count: int) -> list[float]:
        times = []
        for _ in range(count):
            began = time.thread_time()
            run()
            times.append(time.thread_time() - began)
        return times

    return sample


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Supervisor.start(options=SupervisorOptions(audit_folder=folder, policy_folder=folder)) as supervisor,
    ):
        actor: Any = ray.remote(_Nothing).options(num_cpus=0).remote()
        contenders: dict[str, Contender] = {RAY: timed(lambda: ray.get(actor.do.remote()))}
        bursts, pauses_s = {RAY: BURST, CHANNEL: BURST}, {}
        for language, code in PROGRAMS.items():

            def run(language: str = language, code: str = code) -> Result:
                result = supervisor.run(code, language)
                assert result.value == 2
                return result

            for _ in range(20):
                run()
            burst, pause_s = (PAUSED_BURST, 0.05) if language == "python" else (BURST, 0.0)
            for name, contender in ((f"{language}: around the guest", _around(run)), (f"{language}: CPU", _cpu(run))):
                contenders[name], bursts[name], pauses_s[name] = contender, burst, pause_s
        channel = supervisor._handle._pools.to("wasm").channel
        contenders[CHANNEL] = timed(lambda: void(channel.request({"op": "ping"})))
        times = interleave(contenders, rounds=ROUNDS, bursts=bursts, pauses_s=pauses_s)
        rows = summarise(times, RAY)
        ratio = next(row.ratio for row in rows if row.name == CHANNEL)
        met = "met" if ratio <= CHANNEL_BAR else "MISSED"
        report(
            "client overhead", rows, RAY, {"bar": f"the channel <= {CHANNEL_BAR} of a raw Ray call: {ratio:.3f}, {met}"}
        )


def void(answer: object) -> None:
    assert answer is not None


if __name__ == "__main__":
    main()
