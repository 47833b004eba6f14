"""A recording that was made up, of times that are told apart."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.scheduler.real.recording import Key, Recording, Run
from benchmarks.scheduler.real.workload import PROGRAMS

ABOUT = {"instances": 4, "cores": 2}
ARMS = {
    "js fibonacci": ("v8/isolate", "wasm/quickjs"),
    "js sieve": ("v8/isolate", "wasm/quickjs"),
    "checksum": ("ebpf/record", "wasm/record"),
    "count by kind": ("ebpf/record", "wasm/record"),
}
"""One program of each pair is held out of training."""


def recording(times_s: Mapping[Key, float] = {}, runs: int = 20) -> Recording:
    """Return one whose times are those given, or ten milliseconds, and grow by a microsecond from run to run."""
    found = []
    for number in range(runs):
        for program, arms in ARMS.items():
            for size in range(len(PROGRAMS[program].sizes)):
                for arm in arms:
                    time_s = times_s.get((program, size, arm), 0.010) + number * 1e-6
                    elapsed_s, service_s = round(time_s + 0.001, 6), round(time_s, 6)
                    found.append(Run((program, size, arm), elapsed_s, service_s, 0.001, hogged=number % 5 == 4))
    return Recording(ABOUT, tuple(found))
