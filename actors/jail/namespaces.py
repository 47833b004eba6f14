"""User namespaces: how a process without root gets to make the others. See user_namespaces(7)."""

from __future__ import annotations

import os
from pathlib import Path

from runvisor.actors.jail import kernel


def enter_user_namespace(inside: int, more: int = 0) -> None:
    """Enter a user namespace in which the present user has the id ``inside``.

    The process holds every capability over what the new namespace owns.

    Args:
        inside: The user and group id inside.
        more: ``CLONE_NEW*`` flags of namespaces to make with it, which it then owns.
    """
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER | more)
    # A user who may not be root may map a group only after giving up setgroups(2).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{inside} {gid} 1")
