"""The floor under any process sandbox: fork, new namespaces, a cgroup, exit. Driven by sandbox_throughput.

Reads a number of seconds per line on stdin and answers each with one line of
JSON: how many a second, and what CPU time each took.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import sys
import time
from pathlib import Path

from runvisor.actors.jail import cgroups, kernel
from runvisor.actors.python import guest
from runvisor.actors.python.runtime import PythonRuntime

_NAMESPACES = kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS


def main() -> None:
    """Load what the sandboxes load, then loop as often as asked."""
    guest.preload(dict(PythonRuntime()._zygote.spec.options))
    gc.collect()
    gc.freeze()
    parent = cgroups.find_hierarchy().parent
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_loop(float(line), int(sys.argv[1]), parent, own)), flush=True)


def _loop(seconds: float, in_flight: int, parent: Path, own_pid_namespace: int) -> dict[str, object]:
    alive: dict[int, Path] = {}
    dead: list[Path] = []
    done = 0
    before, began = _cpu_s(), time.monotonic()
    while time.monotonic() < began + seconds or alive:
        while len(alive) < in_flight and time.monotonic() < began + seconds:
            group = parent / f"runvisor-{os.getpid()}-{done + len(alive)}-bare"
            group.mkdir()
            join = os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
            kernel.setns(own_pid_namespace, kernel.CLONE_NEWPID)
            kernel.unshare(kernel.CLONE_NEWPID)
            pid = os.fork()
            if pid == 0:
                kernel.unshare(_NAMESPACES)
                os.write(join, b"0")
                os._exit(0)
            kernel.setns(own_pid_namespace, kernel.CLONE_NEWPID)
            os.close(join)
            alive[pid] = group
        pid, _ = os.wait()
        dead.append(alive.pop(pid))
        done += 1
        dead = [group for group in dead if not _removed(group)]
    while dead:
        dead = [group for group in dead if not _removed(group)]
    took_s, after = time.monotonic() - began, _cpu_s()
    own, children = ((after[i] - before[i]) / done * 1e3 for i in range(2))
    return {
        "per_second": done / took_s,
        "cpu_ms": own + children,
        "parts": {"parent (forking)": own, "children (namespaces, exit)": children},
    }


def _removed(group: Path) -> bool:
    with contextlib.suppress(OSError):  # its last process is still counted for a moment
        group.rmdir()
        return True
    return False


def _cpu_s() -> tuple[float, float]:
    return tuple(  # type: ignore[return-value]
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
