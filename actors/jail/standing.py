"""What this process may do towards a jail: with root, with a user namespace, or with neither."""

from __future__ import annotations

import functools
import os
import subprocess
from enum import StrEnum
from typing import Final

from runvisor.actors.jail import cgroups, landlock
from runvisor.actors.jail.spec import (
    ALL_LAYERS,
    CPU_CGROUP,
    LAYERS,
    MEMORY_CGROUP,
    MEMORY_RLIMIT,
    USER_NAMESPACE,
    JailSpec,
)

_NAMESPACES: Final = ("--mount", "--pid", "--net", "--ipc", "--uts")
_PROBE_TIMEOUT_S: Final = 5
_MADE_OF_NAMESPACES: Final = frozenset(
    {"pid namespace", "mount namespace, read-only root", "network namespace, empty", "ipc and uts namespaces"}
)

REQUIRED: Final = (*(layer for layer in LAYERS if layer not in ("own uid", MEMORY_CGROUP, CPU_CGROUP, "landlock")),)
"""Layers without which untrusted code is refused, unless the operator accepts that."""


class Standing(StrEnum):
    """Where the power to make namespaces comes from."""

    ROOT = "root"
    USER_NAMESPACE = "user namespace"
    """An ordinary user whom the kernel lets make user namespaces."""
    PLAIN = "plain"
    """Neither: only what any process may do to itself."""


@functools.cache
def find_standing() -> Standing:
    """Find out by trying, once per process."""
    if os.geteuid() == 0 and _can_unshare():
        return Standing.ROOT
    if _can_unshare("--user", "--map-root-user", "--mount-proc"):
        return Standing.USER_NAMESPACE
    return Standing.PLAIN


def layers_for(spec: JailSpec, standing: Standing, *, memory_cgroup: bool, cpu_cgroup: bool) -> frozenset[str]:
    """Compute the layers that children will have.

    Args:
        spec: What is wanted.
        standing: What may be done.
        memory_cgroup: A cgroup can be made for each.
        cpu_cgroup: It can be held to a share of CPU time.

    Example:
        >>> spec = JailSpec("python", "runvisor.actors.python.guest")
        >>> layers = layers_for(spec, Standing.USER_NAMESPACE, memory_cgroup=False, cpu_cgroup=False)
        >>> sorted(set(LAYERS) - layers)
        ['cpu cgroup', 'memory cgroup', 'own uid']
    """
    layers = set(LAYERS)
    if standing is Standing.USER_NAMESPACE:
        layers |= {USER_NAMESPACE}
        layers -= {"own uid"}
    elif standing is Standing.PLAIN:
        layers -= _MADE_OF_NAMESPACES | {"own uid"}
    if not memory_cgroup:
        layers -= {MEMORY_CGROUP}
        layers |= {MEMORY_RLIMIT}
    if not cpu_cgroup or spec.cores is None:
        layers -= {CPU_CGROUP}
    if landlock.abi() < 1:
        layers -= {"landlock"}
    return frozenset(layers - spec.without)


@functools.cache
def engine_layers() -> tuple[str, ...]:
    """Return the layers around an engine of ours here: no rlimit bounds its memory, which serves many runs."""
    try:
        cgroups.find_hierarchy()
        memory_cgroup = True
    except OSError:
        memory_cgroup = False
    spec = JailSpec("engine", "none", cores=None)
    layers = layers_for(spec, find_standing(), memory_cgroup=memory_cgroup, cpu_cgroup=False) - {MEMORY_RLIMIT}
    return tuple(layer for layer in ALL_LAYERS if layer in layers)


def gaps(layers: frozenset[str]) -> tuple[str, ...]:
    """Name what is missing for untrusted code.

    Example:
        >>> gaps(frozenset(LAYERS) - {"seccomp allow-list"})
        ('seccomp allow-list',)
    """
    missing = [layer for layer in REQUIRED if layer not in layers]
    if not layers & {MEMORY_CGROUP, MEMORY_RLIMIT}:
        missing.append(MEMORY_CGROUP)
    return tuple(missing)


def _can_unshare(*more: str) -> bool:
    """Try the namespaces with util-linux's own tool: this process may have threads, so it must not fork."""
    command = ["/usr/bin/unshare", *more, *_NAMESPACES, "--fork", "/bin/echo", "ok"]
    try:
        # Its word counts, not its status: where SIGCHLD is ignored, as in a Ray worker, that is lost.
        return subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=False).stdout == b"ok\n"
    except (OSError, subprocess.TimeoutExpired):
        return False
