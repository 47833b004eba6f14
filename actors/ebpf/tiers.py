"""The tiers of executors: what their processes hold, and how programs loop in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from runvisor.policies.bytecode import Loop

Tier = Literal["bpf", "bpf+perfmon", "bpf+perfmon+net_admin"]
CAPABILITIES: Final[Mapping[Tier, frozenset[str]]] = {
    "bpf": frozenset({"CAP_BPF"}),
    "bpf+perfmon": frozenset({"CAP_BPF", "CAP_PERFMON"}),
    "bpf+perfmon+net_admin": frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"}),
}


def loops_of(has_may_goto: bool, has_iterator: bool) -> Mapping[Tier, Loop]:
    """Choose how programs loop: the fast way, or for untrusted ones the way whose bound is proved.

    See `runvisor.policies.bytecode`; an iterator's step costs some 8 ns more per record.
    """
    return {
        "bpf": "iterator" if has_iterator else "may_goto",
        "bpf+perfmon": "may_goto" if has_may_goto else "iterator",
        "bpf+perfmon+net_admin": "may_goto" if has_may_goto else "iterator",
    }
