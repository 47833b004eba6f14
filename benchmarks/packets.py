"""What does a packet cost as a socket filter and as an XDP program, beside plain Python?

Run it with ``python -m benchmarks.packets``. Needs root and bcc. A capture of 200,000
packets in memory; times of the runtime are those of `Runtime.execute`, from the bytes
of the capture to the value. Plain Python walks over the same bytes with ``struct``, and
takes from a packet what the program takes. A test run for each packet is what the
kernel's own interface costs without a harness that walks: of a program that does
nothing, in this process.
"""

from __future__ import annotations

import os
import random
import statistics
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.measure import Contender, interleave, report, summarise, timed
from runvisor.actors.ebpf import bpf
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust

PACKETS = 200_000
ROUNDS = 20
FILTER, UNTRUSTED, XDP = "socket filter, verified tier", "socket filter, untrusted tier", "XDP program"
PYTHON, ONE_BY_ONE = "pure Python", "a test run per packet, program empty"
FILTER_SOURCE = """
struct state { u32 count[256]; };
int on_packet(struct packet *p, struct state *s)
{
    if (load_half(p, 12) != ETH_P_IP || load_byte(p, 23) != IPPROTO_UDP)
        return 0;
    s->count[load_half(p, 14 + 4 * (load_byte(p, 14) & 15) + 2) & 255]++;
    return -1;
}
"""
XDP_SOURCE = """
struct state { u32 count[256]; };
int on_xdp(void *data, void *data_end, struct state *s)
{
    struct ethhdr *eth = data;
    struct iphdr *ip = (void *)(eth + 1);
    if ((void *)(ip + 1) > data_end || eth->h_proto != htons(ETH_P_IP) || ip->protocol != IPPROTO_UDP)
        return XDP_DROP;
    struct udphdr *udp = (void *)ip + ip->ihl * 4;
    if ((void *)(udp + 1) > data_end)
        return XDP_DROP;
    s->count[ntohs(udp->dest) & 255]++;
    return XDP_PASS;
}
"""
_EMPTY = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)


def capture(count: int = PACKETS) -> bytes:
    """Return a pcap file of UDP, TCP and ARP packets."""
    chance = random.Random(7)
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number in range(count):
        kind, protocol = chance.choice(((0x0800, 17), (0x0800, 17), (0x0800, 6), (0x0806, 0)))
        words = chance.choice((5, 5, 5, 7))
        ip = bytes([0x40 | words, *bytes(7), 64, protocol]) + bytes(4 * words - 10)
        packet = bytes(12) + struct.pack(">H", kind) + ip + struct.pack(">HH", 1234, chance.randrange(1 << 16))
        packet += bytes(4 + chance.randrange(200))
        parts += (struct.pack("<IIII", number, 0, len(packet), len(packet)), packet)
    return b"".join(parts)


def in_python(data: bytes) -> tuple[int, list[int]]:
    """Do what the programs do."""
    header, half = struct.Struct("<8xI4x").unpack_from, struct.Struct(">H").unpack_from
    count, accepted, at, end = [0] * 256, 0, 24, len(data)
    while at < end:
        (length,) = header(data, at)
        packet = at + 16
        at = packet + length
        if half(data, packet + 12)[0] != 0x0800 or data[packet + 23] != 17:
            continue
        port = packet + 14 + 4 * (data[packet + 14] & 15) + 2
        if port + 2 > at:
            continue
        count[half(data, port)[0] & 255] += 1
        accepted += 1
    return accepted, count


def on(runtime: EbpfRuntime, source: str, trust: Trust, data: bytes) -> Callable[[], tuple[int, list[int]]]:
    """Return a call of the runtime."""
    task = Task(source, "c-packet", {"pcap": data})
    grant = Grant("bench", trust, Permissions(memory_bytes=64 * MiB))

    def call() -> tuple[int, list[int]]:
        value: Any = runtime.execute(task, "packet", grant, Watch()).unwrap()
        return value["verdicts"].get("accepted", value["verdicts"].get("XDP_PASS")), value["state"]["count"]

    return call


def checked(call: Callable[[], object], expected: object) -> Contender:
    """Time a call that has answered right once."""
    if call() != expected:
        raise AssertionError("the answers differ")

    def once() -> None:
        call()

    return timed(once)


def main() -> None:
    """Measure and report."""
    data = capture()
    expected = in_python(data)
    with ExitStack() as stack:
        runtime = EbpfRuntime(PoolSize(minimum=1, maximum=4))
        stack.callback(runtime.close)
        runtime.start()
        program = bpf.load_socket_filter(_EMPTY)
        stack.callback(os.close, program)
        run = bpf.BareRun(program, 64)

        def one_by_one() -> None:
            for _ in range(PACKETS):
                run()

        contenders = {
            FILTER: checked(on(runtime, FILTER_SOURCE, Trust.VERIFIED, data), expected),
            UNTRUSTED: checked(on(runtime, FILTER_SOURCE, Trust.UNTRUSTED, data), expected),
            XDP: checked(on(runtime, XDP_SOURCE, Trust.TRUSTED, data), expected),
            PYTHON: checked(lambda: in_python(data), expected),
            ONE_BY_ONE: timed(one_by_one),
        }
        times = interleave(contenders, rounds=ROUNDS, repeats={PYTHON: ROUNDS // 2, ONE_BY_ONE: ROUNDS // 4})
    extra: dict[str, Any] = {"packets": PACKETS, "bytes": len(data)}
    for name, values in times.items():
        extra[f"{name}, ns per packet"] = round(statistics.median(values) / PACKETS * 1e9, 1)
    report("packets", summarise(times, FILTER), FILTER, extra)


if __name__ == "__main__":
    main()
