"""Programs attached to a cgroup, which stay there for as long as it lives, whatever becomes of who attached them.

A link would end with its last descriptor, and what it forbade would be allowed
again: these attachments end with the cgroup, which cannot be removed while it
has a process. Source: https://docs.kernel.org/bpf/prog_cgroup_sockopt.html
("Hierarchical" attachments), kernel/bpf/cgroup.c, man 2 bpf.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from runvisor.actors.ebpf import bpf

_PROG_ATTACH: Final = 8
_PROG_DETACH: Final = 9
_PROG_QUERY: Final = 16
_ALLOW_MULTI: Final = 2
_MOST: Final = 64


def attach(group_fd: int, program_fd: int, attach_type: int) -> None:
    """Have a program asked for every process of a cgroup and of those below, beside those that are asked already.

    Each of them must agree. The program stays when its descriptor is closed.

    Args:
        group_fd: The cgroup's folder, of version 2.
        program_fd: The program, loaded for this attach type.
        attach_type: Of ``enum bpf_attach_type``.

    Raises:
        OSError: Refused (EPERM), also by a cgroup above that lets nobody add to its programs; or the
            kernel does not know it (EINVAL).
    """
    packed = struct.pack("<IIII", group_fd, program_fd, attach_type, _ALLOW_MULTI)
    bpf.call(_PROG_ATTACH, bpf.attribute(packed), "program attach")


def detach(group_fd: int, program_fd: int, attach_type: int) -> None:
    """Have a program asked no longer.

    Args:
        group_fd: The cgroup's folder.
        program_fd: The program.
        attach_type: Of ``enum bpf_attach_type``.

    Raises:
        OSError: It is not attached (ENOENT), or refused.
    """
    bpf.call(_PROG_DETACH, bpf.attribute(struct.pack("<III", group_fd, program_fd, attach_type)), "program detach")


def attached(group_fd: int, attach_type: int) -> tuple[int, ...]:
    """Return the ids of the programs that are attached to this very cgroup.

    Args:
        group_fd: The cgroup's folder, of version 2.
        attach_type: Of ``enum bpf_attach_type``.

    Raises:
        OSError: Refused, or unknown to the kernel.
    """
    ids = (ctypes.c_uint32 * _MOST)()
    attribute = bpf.attribute(struct.pack("<IIIIQI", group_fd, attach_type, 0, 0, ctypes.addressof(ids), _MOST))
    bpf.call(_PROG_QUERY, attribute, "program query")
    (count,) = struct.unpack_from("<I", attribute.raw, 24)
    return tuple(ids[:count])
