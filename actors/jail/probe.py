"""Can this machine keep a jail? Found by trying each mechanism, in a few milliseconds."""

from __future__ import annotations

import os
import subprocess

from runvisor.actors.jail import cgroups, kernel, landlock
from runvisor.actors.runtime import Probe

_ROOT_REMEDY = "run as root, or in a container as root (rootless operation is planned)"


def probe_jail(runtime: str) -> Probe:
    """Say whether a process-based runtime can be jailed here, and if not, what is missing.

    Args:
        runtime: The runtime's name, for the report.
    """

    def missing(detail: str, remedy: str) -> Probe:
        return Probe(runtime, False, detail, remedy)

    if os.geteuid() != 0:
        return missing("namespaces cannot be made without root", _ROOT_REMEDY)
    if kernel.MACHINE not in ("x86_64", "aarch64"):
        return missing(f"no system-call list for {kernel.MACHINE}", "use x86-64 or aarch64")
    try:
        import pyseccomp  # noqa: F401  # it loads libseccomp.so.2
    except (ImportError, OSError) as error:
        return missing(f"libseccomp cannot be loaded: {error}", "apt-get install libseccomp2")
    if (abi := landlock.abi()) < 1:
        return missing("the kernel has no Landlock", "boot Linux 5.13 or later with lsm=landlock")
    try:
        hierarchy = cgroups.find_hierarchy()
    except OSError as error:
        return missing(str(error), "mount the cgroup file system writable for this process")
    if not _can_unshare():
        return missing("unshare(2) is refused", "grant CAP_SYS_ADMIN (for a container: --privileged)")
    return Probe(runtime, True, f"namespaces, seccomp, Landlock ABI {abi}, memory cgroup v{hierarchy.version}")


def _can_unshare() -> bool:
    """Try the namespaces with util-linux's own tool: this process may have threads, so it must not fork."""
    command = ["/usr/bin/unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "/bin/echo", "ok"]
    try:
        # Its word counts, not its status: where SIGCHLD is ignored, as in a Ray worker, that is lost.
        return subprocess.run(command, capture_output=True, timeout=5, check=False).stdout == b"ok\n"
    except (OSError, subprocess.TimeoutExpired):
        return False
