"""Packet programs answer what plain Python answers, packet by packet."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runvisor.actors.ebpf.packets.agreement import CAPTURE_BYTES
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.policies.bytecode import Loop
from runvisor.policies.trust import Trust
from tests.actors.ebpf.packets.conftest import PacketAsker
from tests.policies.test_captures import pcap

pytestmark = [pytest.mark.kernel, pytest.mark.root]

FILTER = """
struct state { u64 ports[4]; u64 bytes, longest; };

int on_packet(struct packet *p, struct state *s)
{
    if (packet_length(p) > s->longest)
        s->longest = packet_length(p);
    if (load_half(p, 12) != ETH_P_IP || load_byte(p, 23) != IPPROTO_UDP)
        return 0;
    u32 at = 14 + 4 * (load_byte(p, 14) & 15);
    u32 port = load_half(p, at + 2);
    s->bytes += load_word(p, at) & 0xff;
    s->ports[port & 3]++;
    return port == 53 ? -1 : at;
}
"""
XDP = """
struct state { u64 ports[4]; u64 short_ones; };

int on_xdp(void *data, void *data_end, struct state *s)
{
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if ((void *)(ip + 1) > data_end) {
        s->short_ones++;
        return XDP_ABORTED;
    }
    if (eth->h_proto != htons(ETH_P_IP))
        return XDP_PASS;
    if (ip->protocol != IPPROTO_UDP || ip->ihl != 5)
        return XDP_DROP;
    struct udphdr *udp = (void *)(ip + 1);
    if ((void *)(udp + 1) > data_end)
        return XDP_ABORTED;
    s->ports[ntohs(udp->dest) & 3]++;
    ip->ttl--;
    return ntohs(udp->source) == 53 ? XDP_TX : 77;
}
"""
CUT = FILTER.replace("port == 53 ? -1 : at", "at")
"""The same without keeping whole packets: so the verifier takes it in the hardened tier, too."""
ARP, TCP, UDP = b"\x08\x06", 6, 17


def frame(kind: bytes, words: int, protocol: int, source: int, destination: int, rest: bytes, cut: int) -> bytes:
    ip = bytes([0x40 | words, 0]) + bytes(6) + bytes([64, protocol]) + bytes(10)
    options = bytes(max(0, words - 5) * 4)
    return (bytes(12) + kind + ip + options + struct.pack(">HH", source, destination) + bytes(4) + rest)[:cut]


PACKETS = st.one_of(
    st.builds(
        frame,
        st.sampled_from((b"\x08\x00", b"\x08\x00", ARP)),
        st.sampled_from((5, 5, 6, 15)),
        st.sampled_from((UDP, UDP, TCP)),
        st.sampled_from((53, 1, 65535)),
        st.sampled_from((53, 2, 65535)),
        st.binary(max_size=30),
        st.integers(14, 200),
    ),
    st.binary(min_size=14, max_size=300),
)


class Beyond(Exception):
    """A read beyond the end of a packet."""


def filtered(packets: list[bytes], *, whole: int = 53) -> dict[str, Any]:
    """Answer as `FILTER` does, in Python."""
    state: dict[str, Any] = {"ports": [0] * 4, "bytes": 0, "longest": 0}
    kept: list[int] = []
    for packet in packets:
        beyond = False

        def load(at: int, size: int, packet: bytes = packet) -> int:
            nonlocal beyond
            beyond = beyond or at + size > len(packet)
            return 0 if at + size > len(packet) else int.from_bytes(packet[at : at + size], "big")

        state["longest"] = max(state["longest"], len(packet))
        verdict = 0
        if load(12, 2) == 0x0800 and load(23, 1) == UDP:
            at = 14 + 4 * (load(14, 1) & 15)
            port = load(at + 2, 2)
            state["bytes"] += load(at, 4) & 0xFF
            state["ports"][port & 3] += 1
            verdict = len(packet) if port == whole else at
        kept.append(0 if beyond else min(verdict, len(packet)))
    accepted = sum(map(bool, kept))
    verdicts = {"accepted": accepted, "dropped": len(kept) - accepted}
    return {"packets": len(kept), "verdicts": verdicts, "kept_bytes": sum(kept), "state": state, "per_packet": kept}


def processed(packets: list[bytes]) -> dict[str, Any]:
    """Answer as `XDP` does, in Python."""
    state: dict[str, Any] = {"ports": [0] * 4, "short_ones": 0}
    codes: list[int] = []
    changed: list[dict[str, Any]] = []
    for number, packet in enumerate(packets):
        code = 77
        if len(packet) < 34:
            state["short_ones"] += 1
            code = 0
        elif packet[12:14] != b"\x08\x00":
            code = 2
        elif packet[23] != UDP or packet[14] & 15 != 5:
            code = 1
        elif len(packet) < 42:
            code = 0
        else:
            state["ports"][int.from_bytes(packet[36:38], "big") & 3] += 1
            shorter = packet[:22] + bytes([packet[22] - 1 & 0xFF]) + packet[23:]
            changed.append({"packet": number, "bytes": shorter})
            code = 3 if packet[34:36] == b"\x00\x35" else 77
        codes.append(code)
    names = ("XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT")
    verdicts = {name: codes.count(number) for number, name in enumerate(names)} | {"unknown": codes.count(77)}
    answer = {"packets": len(codes), "verdicts": verdicts, "state": state, "per_packet": codes}
    return {**answer, "changed": changed}


def plain(value: Any) -> Any:
    return {**value, "per_packet": value["per_packet"].tolist()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packets=st.lists(PACKETS, max_size=40))
def test_a_filter_answers_what_python_answers(run: PacketAsker, packets: list[bytes]) -> None:
    assert plain(run(FILTER, packets, per_packet=True).unwrap()) == filtered(packets)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(packets=st.lists(PACKETS, max_size=40))
def test_an_xdp_program_answers_what_python_answers(run: PacketAsker, packets: list[bytes]) -> None:
    assert plain(run(XDP, packets, per_packet=True, changed=True).unwrap()) == processed(packets)


def many(count: int, longest: int) -> list[bytes]:
    chance = random.Random(count)
    return [
        frame(b"\x08\x00", 5, UDP, 53, chance.choice((53, 7)), chance.randbytes(chance.randrange(longest)), 70000)
        for _ in range(count)
    ]


@pytest.mark.parametrize(("source", "expected", "longest"), [(FILTER, filtered, 60000), (XDP, processed, 3400)])
def test_a_capture_of_many_windows_is_one_run(
    run: PacketAsker, source: str, expected: Callable[[list[bytes]], dict[str, Any]], longest: int
) -> None:
    packets = many(3 * CAPTURE_BYTES // (longest // 2), longest)
    assert sum(map(len, packets)) > 2 * CAPTURE_BYTES
    options: dict[str, Any] = {"changed": True} if source is XDP else {}
    options["limits"] = {"output_bytes": 1 << 28}
    assert plain(run(source, packets, per_packet=True, **options).unwrap()) == expected(packets)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("nanoseconds", [False, True])
def test_a_pcap_gives_the_same_in_every_byte_order_and_unit(run: PacketAsker, order: str, nanoseconds: bool) -> None:
    packets = many(50, 100)
    assert plain(run(FILTER, pcap=pcap(packets, order, nanoseconds=nanoseconds), per_packet=True).unwrap()) == filtered(
        packets
    )
    assert run(XDP, pcap=pcap(packets, order)).unwrap()["verdicts"] == processed(packets)["verdicts"]


@pytest.mark.parametrize(("order", "magic", "unit"), [("<", 0xA1B2C3D4, 1000), (">", 0xA1B23C4D, 1)])
def test_a_filter_knows_when_a_packet_came_and_how_long_it_was(
    run: PacketAsker, order: str, magic: int, unit: int
) -> None:
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    data += struct.pack(f"{order}IIII", 1_900_000_000, 7, 3, 1500) + b"abc"
    source = """struct state { u64 time; u32 wire, length; };
    int on_packet(struct packet *p, struct state *s) {
        s->time = packet_time_ns(p); s->wire = packet_wire_length(p); s->length = packet_length(p); return 1; }"""
    state = run(source, pcap=data).unwrap()["state"]
    assert state == {"time": 1_900_000_000_000_000_000 + 7 * unit, "wire": 1500, "length": 3}


@pytest.mark.parametrize("loop", ["may_goto", "iterator"])
@pytest.mark.parametrize("trust", list(Trust))
def test_every_tier_and_every_loop_give_the_same(
    run: PacketAsker, runtime: EbpfRuntime, monkeypatch: pytest.MonkeyPatch, loop: Loop, trust: Trust
) -> None:
    from runvisor.actors.ebpf.probe import has_may_goto

    if loop == "may_goto" and not has_may_goto():
        pytest.skip("this kernel has no may_goto")
    monkeypatch.setattr(runtime, "_loops", dict.fromkeys(runtime._loops, loop))
    packets = many(100, 60)
    mark = f"// {loop} {trust}\n"  # another text: compiled anew
    assert plain(run(mark + CUT, packets, trust=trust, per_packet=True).unwrap()) == filtered(packets, whole=-1)
    if trust is Trust.TRUSTED:
        assert plain(run(mark + XDP, packets, per_packet=True, changed=True).unwrap()) == processed(packets)


def test_a_program_finds_the_headers_and_constants_that_it_expects(run: PacketAsker) -> None:
    source = """
    _Static_assert(sizeof(struct ethhdr) == 14 && sizeof(struct iphdr) == 20 && sizeof(struct ipv6hdr) == 40, "");
    _Static_assert(sizeof(struct tcphdr) == 20 && sizeof(struct udphdr) == 8 && sizeof(struct icmphdr) == 8, "");
    _Static_assert(sizeof(struct vlan_hdr) == 4 && sizeof(struct in6_addr) == 16, "");
    struct state { u32 syns, port, hops; };
    int on_xdp(void *data, void *data_end, struct state *s)
    {
        struct ethhdr *eth = data;
        struct ipv6hdr *ip = (void *)(eth + 1);
        struct tcphdr *tcp = (void *)(ip + 1);
        if ((void *)(tcp + 1) > data_end || eth->h_proto != bpf_htons(ETH_P_IPV6) || ip->nexthdr != IPPROTO_TCP)
            return XDP_DROP;
        s->syns += tcp->syn && !tcp->ack && tcp->doff == 5 && ip->version == 6;
        s->port = ntohs(tcp->dest);
        s->hops = ip->hop_limit;
        return XDP_PASS;
    }"""
    tcp = struct.pack(">HHIIBBHHH", 1, 443, 0, 0, 5 << 4, 2, 0, 0, 0)
    packet = bytes(12) + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, 20, 6, 63) + bytes(32) + tcp
    assert run(source, [packet]).unwrap()["state"] == {"syns": 1, "port": 443, "hops": 63}


def test_the_state_is_what_is_asked_for_and_new_in_every_run(run: PacketAsker) -> None:
    source = "struct state { u64 n; };\nint on_packet(struct packet *p, struct state *s) { s->n++; return 1; }"
    assert run(source, [b"a", b"b"], state={"n": 40}).unwrap()["state"] == {"n": 42}
    assert run(source, [b"a"]).unwrap()["state"] == {"n": 1}
    assert run(source).unwrap() == {
        "packets": 0,
        "verdicts": {"accepted": 0, "dropped": 0},
        "kept_bytes": 0,
        "state": {"n": 0},
    }


def test_verdicts_per_packet_come_as_an_array(run: PacketAsker) -> None:
    source = "int on_packet(struct packet *p, struct state *s) { return load_byte(p, 0); }"
    lengths = run(source, [bytes([n]) * 10 for n in (0, 4, 200)], per_packet=True).unwrap()["per_packet"]
    assert lengths.dtype == np.uint32
    assert lengths.tolist() == [0, 4, 10]


SIZES = (("byte", 1), ("half", 2), ("word", 4))
READER = """
struct state { u32 at, byte, half, word; };
int on_packet(struct packet *p, struct state *s)
{
    s->byte = load_byte(p, s->at);
    s->half = load_half(p, s->at);
    s->word = load_word(p, s->at);
    return -1;
}
"""


@pytest.mark.parametrize("trust", [Trust.UNTRUSTED, Trust.VERIFIED])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    packet=st.binary(min_size=1, max_size=40),
    at=st.one_of(st.integers(0, 45), st.sampled_from((65535, 65536, 1 << 20, (1 << 32) - 4, (1 << 32) - 1))),
)
def test_a_read_anywhere_gives_the_packet_or_zero(run: PacketAsker, trust: Trust, packet: bytes, at: int) -> None:
    neighbours = [b"\xee" * 60, packet, b"\xdd" * 60]
    value: Any = run(READER, [packet], trust=trust, state={"at": at}).unwrap()
    want = {name: int.from_bytes(packet[at : at + n], "big") if at + n <= len(packet) else 0 for name, n in SIZES}
    assert value["state"] == {"at": at, **want}
    assert value["verdicts"]["accepted"] == (at + 4 <= len(packet))
    assert run(READER, neighbours, trust=trust, state={"at": at}).unwrap()["verdicts"] == {
        "accepted": sum(at + 4 <= len(each) for each in neighbours),
        "dropped": sum(at + 4 > len(each) for each in neighbours),
    }


def test_the_example_of_the_page_runs_as_it_says(run: PacketAsker) -> None:
    page = (Path(__file__).resolve().parents[4] / "docs/packets.md").read_text()
    source = page.partition("```c\n")[2].partition("```")[0]
    query = frame(b"\x08\x00", 5, UDP, 5000, 53, b"?" * 20, 100)
    other = frame(b"\x08\x00", 7, UDP, 5000, 443, b"!" * 20, 100)
    tcp = frame(b"\x08\x00", 5, TCP, 5000, 53, b"!" * 20, 100)
    value: Any = run(source, [query, other, tcp], per_packet=True).unwrap()
    assert value["per_packet"].tolist() == [len(query), 14 + 28 + 8, 0]
    assert value["state"] == {"queries": 1, "bytes": len(query) + len(other)}
