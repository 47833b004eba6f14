"""Packet programs: one C function that the kernel calls for every packet of a capture.

The language ``c-packet``. A program is a socket filter or an XDP program, by the name of
its function::

    struct state { u64 queries; };                       /* optional: kept from packet to packet */

    int on_packet(struct packet *p, struct state *s)     /* a socket filter: bytes to keep, 0 drops */
    {
        if (load_half(p, 12) != ETH_P_IP || load_byte(p, 23) != IPPROTO_UDP)
            return 0;
        s->queries += load_half(p, 36) == 53;
        return -1;                                       /* the whole packet */
    }

    int on_xdp(void *data, void *data_end, struct state *s)    /* an XDP program: a verdict */
    {
        struct ethhdr *eth = data;
        if ((void *)(eth + 1) > data_end)
            return XDP_DROP;
        return eth->h_proto == htons(ETH_P_IPV6) ? XDP_DROP : XDP_PASS;
    }

The task's inputs are ``{"pcap": bytes}`` or ``{"packets": [bytes, ...]}``, and optionally
``"state"`` (first values of its fields), ``"per_packet": True`` (the verdict of each
packet, as an array) and ``"changed": True`` (the packets that an XDP program rewrote). The
value is ``{"packets": n, "verdicts": {name: n}, "state": {field: int | [int, ...]}}``, for a
filter with ``"kept_bytes"``, and with what else was asked for.

- Nothing is attached to an interface: no packet of the host is seen.
- A filter reads by ``load_byte``, ``load_half`` and ``load_word`` (offset from the packet's
  first captured byte; network byte order in, host's out). As in classic BPF a packet is
  dropped if the filter reads beyond its end; there the load gives 0. It knows
  ``packet_length``, ``packet_wire_length`` and ``packet_time_ns`` too.
- An XDP program compares with ``data_end`` before it reads or writes, or the verifier
  refuses it. It may rewrite the packet, not make it longer or shorter.
- Otherwise the C of record programs (see `runvisor.policies.records`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from runvisor.policies.captures import MAX_PACKET_BYTES, Capture, capture_of, read_capture
from runvisor.policies.errors import InvalidTask
from runvisor.policies.values import Value

LANGUAGE: Final = "c-packet"
Kind = Literal["filter", "xdp"]
PACKET_BYTES: Final[Mapping[Kind, tuple[int, int]]] = {"filter": (1, MAX_PACKET_BYTES), "xdp": (14, 3520)}
"""Shortest and longest packet: XDP sees Ethernet frames that lie in one page of the kernel."""
XDP_VERDICTS: Final = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
"""By number; the kernel takes any other number for an abort."""

Verdicts: TypeAlias = "np.ndarray[Any, np.dtype[np.uint32]]"
_INPUTS: Final = frozenset(("pcap", "packets", "state", "per_packet", "changed"))
_SHAPE: Final = "pass {'pcap': bytes} or {'packets': [bytes, ...]}, and optionally 'state', 'per_packet' and 'changed'"


@dataclass(frozen=True, slots=True, eq=False)
class PacketInputs:
    """The checked inputs of a packet task."""

    capture: Capture
    state: Mapping[str, Any]
    per_packet: bool
    changed: bool

    @classmethod
    def of(cls, inputs: Value) -> PacketInputs:
        """Check a task's inputs.

        Raises:
            InvalidTask: They are not what `runvisor.policies.packets` says.
        """
        if not isinstance(inputs, Mapping) or ("pcap" in inputs) == ("packets" in inputs):
            raise InvalidTask("a packet program needs packets, in one of two forms", "inputs", _SHAPE)
        if unknown := sorted(str(key) for key in inputs if key not in _INPUTS):
            raise InvalidTask(f"a packet program takes no input {unknown[0]!r}", "inputs", _SHAPE)
        state = inputs.get("state")
        if state is not None and not isinstance(state, Mapping):
            raise InvalidTask("the state is not a mapping", "inputs['state']", "pass {field: value}")
        for name in ("per_packet", "changed"):
            if not isinstance(inputs.get(name, False), bool):
                raise InvalidTask(
                    f"{name} is neither True nor False", f"inputs[{name!r}]", "pass True, or leave it out"
                )
        if "pcap" in inputs:
            data = inputs["pcap"]
            if not isinstance(data, bytes):
                raise InvalidTask(
                    f"the capture is of type {type(data).__name__}", "inputs['pcap']", "pass the bytes of a pcap file"
                )
            capture = read_capture(data)
        else:
            packets = inputs["packets"]
            if not isinstance(packets, list | tuple):
                raise InvalidTask("the packets are not a list", "inputs['packets']", "pass [bytes, ...]")
            capture = capture_of(packets)
        return cls(capture, state or {}, bool(inputs.get("per_packet")), bool(inputs.get("changed")))


def filter_value(kept: Verdicts) -> dict[str, Value]:
    """Return what came of a filter: how many packets it kept, and how many bytes of them.

    Args:
        kept: Bytes kept of each packet, at most all that it has.

    Example:
        >>> filter_value(np.array([0, 64, 100], "u4"))
        {'packets': 3, 'verdicts': {'accepted': 2, 'dropped': 1}, 'kept_bytes': 164}
    """
    accepted = int(np.count_nonzero(kept))
    return {
        "packets": len(kept),
        "verdicts": {"accepted": accepted, "dropped": len(kept) - accepted},
        "kept_bytes": int(kept.sum(dtype=np.uint64)),
    }


def xdp_value(verdicts: Verdicts) -> dict[str, Value]:
    """Return what came of an XDP program: how many packets got each verdict.

    Args:
        verdicts: What it returned, by packet.

    Example:
        >>> xdp_value(np.array([1, 2, 2, 99], "u4"))["verdicts"]
        {'XDP_ABORTED': 0, 'XDP_DROP': 1, 'XDP_PASS': 2, 'XDP_TX': 0, 'XDP_REDIRECT': 0, 'unknown': 1}
    """
    most = len(XDP_VERDICTS)
    counts = np.bincount(np.minimum(verdicts, most), minlength=most + 1)
    names = (*XDP_VERDICTS, "unknown")
    return {"packets": len(verdicts), "verdicts": {name: int(n) for name, n in zip(names, counts, strict=True)}}
