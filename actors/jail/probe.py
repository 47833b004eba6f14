"""Can this machine keep a jail, and how strong a one? Found by trying, in a few milliseconds."""

from __future__ import annotations

from runvisor.actors.jail import cgroups, kernel, landlock
from runvisor.actors.jail.egress.cgroup_probe import find_obstacle
from runvisor.actors.jail.spec import EGRESS_FILTER, JailSpec
from runvisor.actors.jail.standing import Standing, find_standing, gaps, layers_for
from runvisor.actors.runtime import Probe

_WHATEVER: JailSpec = JailSpec("probe", "none")


def probe_jail(runtime: str) -> Probe:
    """Say how a process-based runtime can be jailed here, or what is missing for it.

    Args:
        runtime: The runtime's name, for the report.
    """
    if kernel.MACHINE not in ("x86_64", "aarch64"):
        return Probe(runtime, False, f"no system-call list for {kernel.MACHINE}", "use x86-64 or aarch64")
    try:
        import pyseccomp  # noqa: F401  # it loads libseccomp.so.2
    except (ImportError, OSError) as error:
        return Probe(runtime, False, f"libseccomp cannot be loaded: {error}", "apt-get install libseccomp2")
    standing = find_standing()
    memory, memory_remedy = _memory()
    abi = landlock.abi()
    parts = {
        Standing.ROOT: ["namespaces", "a uid per instance"],
        Standing.USER_NAMESPACE: ["namespaces (as an ordinary user)"],
        Standing.PLAIN: ["no namespaces"],
    }[standing]
    parts += ["seccomp", f"Landlock ABI {abi}" if abi else "no Landlock", memory]
    unfiltered, filter_remedy = find_obstacle() if standing is not Standing.PLAIN else ("", "")
    if standing is not Standing.PLAIN:
        parts.append(f"no {EGRESS_FILTER} ({unfiltered})" if unfiltered else EGRESS_FILTER)
    detail = ", ".join(parts)
    missing = gaps(layers_for(_WHATEVER, standing, memory_cgroup=not memory_remedy, cpu_cgroup=True))
    if missing:
        return Probe(
            runtime,
            True,
            f"{detail}; too weak for untrusted code, for want of: {', '.join(missing)}",
            "be root, or allow user namespaces (sysctl user.max_user_namespaces; on Ubuntu an AppArmor profile)",
            missing_layers=missing,
        )
    return Probe(runtime, True, detail, "; ".join(filter(None, (memory_remedy, filter_remedy))))


def _memory() -> tuple[str, str]:
    """Say what bounds memory, and how to get the better bound if it is the lesser one."""
    try:
        return f"memory cgroup v{cgroups.find_hierarchy().version}", ""
    except OSError:
        return (
            "memory by rlimits",
            "for memory cgroups: root, or a delegated cgroup (systemd-run --user -p Delegate=yes)",
        )
