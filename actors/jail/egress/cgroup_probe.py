"""Can this machine have the kernel egress filter? Found by making one, in a few milliseconds."""

from __future__ import annotations

import errno
import functools
import itertools
import os
from typing import Final

from runvisor.actors.ebpf import bpf
from runvisor.actors.jail import cgroups
from runvisor.actors.jail.egress.cgroup_filter import FilteredGroup

_NAME: Final = "filter-probe"
_sequence = itertools.count()


@functools.cache
def find_obstacle() -> tuple[str, str]:
    """Return what stands in the way of the filter here, and how to mend that; two empty texts if nothing does.

    It is asked once per process.
    """
    parent = cgroups.find_v2_parent()
    if parent is None:
        return (
            "no cgroup of version 2 can be made",
            "for the kernel egress filter: root, and /sys/fs/cgroup of version 2, writable",
        )
    try:
        FilteredGroup.make(cgroups.group_name(os.getpid(), next(_sequence), _NAME), parent).close()
    except bpf.VerifierRefusal as refusal:
        said = refusal.log.strip().splitlines()[-1:]
        return f"the kernel's verifier refuses its programs: {''.join(said)}", "report this kernel to us"
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return (
                "bpf(2) is refused",
                "for the kernel egress filter: CAP_BPF and CAP_NET_ADMIN, and a seccomp profile that passes bpf "
                "(docker: --cap-add BPF --cap-add NET_ADMIN)",
            )
        return os.strerror(error.errno or 0), "for the kernel egress filter: Linux 5.14 or later"
    return "", ""
