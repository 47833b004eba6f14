"""Packet programs that mean harm, bad captures, and the one defence that stops each."""

from __future__ import annotations

import fcntl
import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from runvisor.actors.channel.frames import Message
from runvisor.actors.ebpf.packets.agreement import CAPTURE_BYTES, VERDICTS_AT, WINDOW_BYTES, ZEROS_AT
from runvisor.actors.ebpf.packets.execution import compile_packets
from runvisor.actors.ebpf.packets.work import LoadedWindow, PacketArtifact, PacketWork
from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.policies.errors import (
    CapabilityDenied,
    GuestSyntaxError,
    InvalidTask,
    MemoryLimitExceeded,
    OutputLimitExceeded,
    ProtocolError,
    RunvisorError,
    TimeLimitExceeded,
)
from runvisor.policies.packet_programs import parse_program
from runvisor.policies.packets import PacketInputs
from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import Grant, Trust
from tests.actors.ebpf.packets.conftest import PacketAsker
from tests.policies.test_captures import pcap

pytestmark = [pytest.mark.kernel, pytest.mark.root]

GOOD = "struct state { u64 n; };\nint on_packet(struct packet *p, struct state *s) { s->n++; return 1; }"
GOOD_XDP = "int on_xdp(void *data, void *data_end, struct state *s) { return XDP_PASS; }"
PACKET = bytes(range(60))


def filter_of(body: str) -> str:
    return f"struct state {{ u64 n[4]; }};\nint on_packet(struct packet *p, struct state *s)\n{{\n{body}\nreturn 1;\n}}"


def xdp_of(body: str) -> str:
    return f"int on_xdp(void *data, void *data_end, struct state *s)\n{{\n{body}\nreturn XDP_PASS;\n}}"


def error_of(run: PacketAsker, source: str) -> RunvisorError:
    """Run a program that must fail, and check that the runtime goes on as if nothing were."""
    result = run(source, [PACKET])
    assert result.error is not None
    assert result.value is None
    assert run(GOOD, [PACKET]).unwrap()["state"] == {"n": 1}
    return result.error


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("((u64 (*)(void))5)()", "bpf_ktime_get_ns"),
        ("((int (*)(void *, int, const void *, int))26)(p, 0, p, 1)", "bpf_skb_load_bytes"),
        ("((void *(*)(u64, void *))1)(rv_map(1, 2), p)", "bpf_map_lookup_elem"),
        ("((int (*)(void *, u64, u32))12)(p, rv_map(1, 0), 0)", "bpf_tail_call"),
        ("((int (*)(u32, void *, void *, u64))181)(9, p, p, 0)", "bpf_loop"),
    ],
)
def test_a_filter_calls_nothing_of_the_kernel(run: PacketAsker, call: str, name: str) -> None:
    error = error_of(run, filter_of(f"s->n[0] = (u64){call};"))
    assert isinstance(error, CapabilityDenied), error
    assert name in error.what


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("rv_adjust_tail(data, -20)", "bpf_xdp_adjust_tail"),
        ("rv_store_bytes(data, 0, data, 4)", "bpf_xdp_store_bytes"),
        ("((int (*)(void *, int))44)(data, 4)", "bpf_xdp_adjust_head"),
        ("((int (*)(u64, u32, u64))51)(rv_map(1, 0), 0, 0)", "bpf_redirect_map"),
    ],
)
def test_an_xdp_program_calls_nothing_that_its_harness_calls(run: PacketAsker, call: str, name: str) -> None:
    error = error_of(run, xdp_of(f"if ({call}) return XDP_DROP;"))
    assert isinstance(error, CapabilityDenied), error
    assert name in error.what


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (xdp_of("*(u8 *)data = 1;"), "without having shown that it is so long"),
        (xdp_of("if (data + 10 > data_end) return 0;\n*(u32 *)(data + 8) = 1;"), "without having shown"),
        (xdp_of("return *(u8 *)data_end;"), "a pointer that does not lead into its input"),
        (filter_of("s->n[load_byte(p, 0)] = 1;"), "beyond the state"),
        (filter_of("for (u32 i = 0; i < load_word(p, 0); i++) s->n[i & 3]++;"), "a loop"),
    ],
)
def test_what_is_not_proved_safe_is_refused_in_a_sentence(run: PacketAsker, source: str, what: str) -> None:
    error = error_of(run, source)
    assert isinstance(error, GuestSyntaxError), error
    assert what in error.what
    assert re.fullmatch(r"[2-5]:\d+", error.where), "the author's own line"


def test_an_error_of_the_compiler_has_line_and_column(run: PacketAsker) -> None:
    error = error_of(run, "int on_xdp(void *data, void *data_end, struct state *s)\n{\n    return XDP_PAS;\n}")
    assert (error.where, "XDP_PAS" in error.what) == ("3:12", True)


def test_untrusted_and_verified_code_does_not_reach_xdp(run: PacketAsker) -> None:
    for trust in (Trust.UNTRUSTED, Trust.VERIFIED):
        result = run(GOOD_XDP, [PACKET], trust=trust)
        assert isinstance(result.error, CapabilityDenied)
        assert "CAP_NET_ADMIN" in result.error.what
    assert run(GOOD_XDP, [PACKET], trust=Trust.TRUSTED).error is None


def capabilities(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"]
    return int(status["CapEff"], 16)


def test_an_executor_holds_the_capabilities_of_its_tier_and_no_others(run: PacketAsker, runtime: EbpfRuntime) -> None:
    net_admin, perfmon, bpf = 1 << 12, 1 << 38, 1 << 39
    for source, trust, tier, kept in (
        (GOOD, Trust.UNTRUSTED, "bpf", bpf),
        (GOOD, Trust.VERIFIED, "bpf+perfmon", bpf | perfmon),
        (GOOD_XDP, Trust.TRUSTED, "bpf+perfmon+net_admin", bpf | perfmon | net_admin),
    ):
        result = run(source, [PACKET], trust=trust)
        assert result.error is None
        with runtime._tier(tier).lend("alice") as executor:  # type: ignore[arg-type]
            assert capabilities(executor.pid) == kept
        assert bool(result.isolation.hardening_off) >= (trust is not Trust.UNTRUSTED)


@pytest.mark.parametrize(("source", "short", "long"), [(GOOD, b"", bytes(65536)), (GOOD_XDP, bytes(13), bytes(3521))])
def test_a_packet_out_of_bounds_is_refused_by_its_number(
    run: PacketAsker, source: str, short: bytes, long: bytes
) -> None:
    least, most = short + b"x", long[1:]
    assert run(source, [least, most]).unwrap()["packets"] == 2
    for packet, word in ((short, "shorter"), (long, "longer")):
        for inputs in ({"packets": [PACKET] * 3 + [packet, PACKET]}, {"pcap": pcap([PACKET] * 3 + [packet, PACKET])}):
            with pytest.raises(InvalidTask, match=f"packet 3 has {len(packet)} bytes and is {word}") as caught:
                run(source, **inputs)  # type: ignore[arg-type]
            assert caught.value.details["packet"] == 3
    assert run(source, [PACKET]).error is None


def test_a_filter_has_no_changed_packets_to_give(run: PacketAsker) -> None:
    with pytest.raises(InvalidTask, match="changes no packets"):
        run(GOOD, [PACKET], changed=True)


def test_a_capture_that_ends_within_a_packet_is_refused_there(run: PacketAsker) -> None:
    whole = pcap([PACKET] * 2)
    for cut in (1, 59, 60, 70):
        with pytest.raises(InvalidTask, match="the capture ends within") as caught:
            run(GOOD, pcap=whole[:-cut])
        assert "packet 1" in caught.value.where
    assert run(GOOD, pcap=whole[:-76]).unwrap()["packets"] == 1


def test_a_header_that_lies_about_its_length_reads_nothing_else(run: PacketAsker) -> None:
    for length in (0xFFFFFFFF, 0x80000000, 65536, 61):
        data = pcap([]) + struct.pack("<IIII", 0, 0, length, length) + PACKET
        with pytest.raises(InvalidTask):
            run(GOOD, pcap=data)


def test_an_endless_capture_ends_at_the_deadline(run: PacketAsker) -> None:
    body = "\n#pragma unroll\nfor (int i = 0; i < 50; i++) s->n[i & 3] += load_byte(p, i) * 7;"
    source = filter_of(body)
    assert run(source, [PACKET]).error is None
    result = run(source, [bytes(60)] * 300_000, limits={"timeout_s": 0.02})
    assert isinstance(result.error, TimeLimitExceeded)
    assert run(GOOD, [PACKET]).unwrap()["state"] == {"n": 1}


def test_limits_of_memory_and_output_hold(run: PacketAsker) -> None:
    assert isinstance(run(GOOD, [PACKET], limits={"memory_bytes": 1 << 20}).error, MemoryLimitExceeded)
    many = [bytes(60)] * 10_000
    assert run(GOOD, many, limits={"output_bytes": 20_000}).error is None
    result = run(GOOD, many, per_packet=True, limits={"output_bytes": 20_000})
    assert isinstance(result.error, OutputLimitExceeded)
    writes = xdp_of("if (data + 14 > data_end) return 0;\n*(u8 *)data = 1;")
    assert isinstance(run(writes, many, changed=True, limits={"output_bytes": 20_000}).error, OutputLimitExceeded)
    assert len(run(writes, many[:9], changed=True, limits={"output_bytes": 20_000}).unwrap()["changed"]) == 9


def test_a_program_that_writes_outside_its_packet_finds_nothing_and_leaves_nothing(run: PacketAsker) -> None:
    """The window is a program's own memory; what an execution left there is gone before the next."""
    spy = """struct state { u64 seen; };
    int on_packet(struct packet *p, struct state *s) {
        u64 *at = (u64 *)(p->rv_window + 4096);
        s->seen = *at;
        *at = 0x5ec7e7;
        return 1;
    }"""
    secret = [b"\xaa" * 8000]
    assert run(spy, secret).unwrap()["state"] == {"seen": 0xAAAAAAAAAAAAAAAA}
    assert run(spy, [b"x"]).unwrap()["state"] == {"seen": 0}
    for principal in ("bob", "carol"):
        assert run(spy, [b"x"], principal=principal).unwrap()["state"] == {"seen": 0}


@pytest.mark.parametrize("at", [4096, CAPTURE_BYTES, ZEROS_AT + 8, VERDICTS_AT + 4, WINDOW_BYTES - 8])
def test_a_short_run_that_is_repeated_finds_nothing_of_itself(run: PacketAsker, at: int) -> None:
    spy = f"""struct state {{ u64 seen; }};
    int on_packet(struct packet *p, struct state *s) {{
        u64 *at = (u64 *)(p->rv_window + {at});
        s->seen = *at;
        *at = 0x5ec7e7;
        return 1;
    }}"""
    for _ in range(3):
        assert run(spy, [b"x"], principal="mallory").unwrap()["state"] == {"seen": 0}


def test_a_program_that_forges_the_capture_only_hurts_itself(run: PacketAsker) -> None:
    """The cursor is out of its reach: the walk ends, within the window."""
    forger = """int on_packet(struct packet *p, struct state *s) {
        for (int i = 0; i < 64; i++)
            *(u32 *)(p->rv_window + 4 * i) = 0;
        return 1;
    }"""
    assert run(forger, [PACKET] * 100).unwrap()["verdicts"] == {"accepted": 100, "dropped": 0}
    assert run(GOOD, [PACKET]).unwrap()["state"] == {"n": 1}


def test_a_text_that_was_not_read_first_still_passes_the_scan(runtime: EbpfRuntime) -> None:
    program = replace(parse_program(GOOD), source=GOOD.replace("s->n++", 'asm volatile("call 6")'))
    grant = Grant("p", Trust.TRUSTED, Permissions())
    with pytest.raises(CapabilityDenied, match="bpf_trace_printk"):
        compile_packets(runtime._compiler, program, "may_goto", grant, lambda: None)


def window(size: int = WINDOW_BYTES) -> int:
    fd = os.memfd_create("window", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, -(-size // 4096) * 4096)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


ARTIFACT = PacketArtifact(b"", 10, "filter", 0)


def test_nothing_of_one_capture_is_left_for_the_next() -> None:
    fd = window()
    loaded = LoadedWindow(1, ARTIFACT, os.dup(fd))
    loaded.write(memoryview(b"\xff" * 5000))
    os.pwrite(fd, b"\xff" * 1248, VERDICTS_AT)
    os.pwrite(fd, b"\xff" * 8, ZEROS_AT)
    loaded.write(memoryview(b"abc"))
    assert os.pread(fd, WINDOW_BYTES, 0) == b"abc".ljust(WINDOW_BYTES, b"\0")
    loaded.close()
    os.close(fd)


class Liar:
    """An executor that answers the same whatever it is asked."""

    def __init__(self, answer: Message) -> None:
        self.asked = 0
        self._answer = {"op": "done", "cpu_s": 0.0, "state": b"", **answer}

    def __call__(self, request: Message) -> Message:
        self.send(request)
        return self.answer()

    def send(self, request: Message) -> None:
        self.asked += 1

    def answer(self) -> Message:
        return self._answer


@pytest.mark.parametrize(
    "answer",
    [
        {"consumed": 77, "packets": 1},
        {"consumed": -1, "packets": 0},
        {"consumed": 76, "packets": 5},
        {"consumed": 76, "packets": 0},
        {"consumed": 0, "packets": 1},
        {"consumed": "76", "packets": 1},
        {"consumed": 76, "packets": 10**9},
        {"packets": 1},
        {"consumed": 76},
        {"consumed": 76, "packets": 1, "cpu_s": None},
        {"consumed": 76, "packets": 1, "state": b"more"},
        {"consumed": 76, "packets": 1, "state": None},
        {"op": "out of memory"},
        {"op": None},
    ],
)
def test_an_executor_that_lies_about_its_progress_is_not_believed(answer: dict[str, object]) -> None:
    loaded = LoadedWindow(1, ARTIFACT, window())
    work = PacketWork(ARTIFACT, PacketInputs.of({"packets": [PACKET]}), b"", 100)
    try:
        with pytest.raises(ProtocolError):
            work.run(loaded, Liar(answer))
    finally:
        loaded.close()


def test_an_executor_that_makes_no_progress_ends_the_run() -> None:
    loaded = LoadedWindow(1, ARTIFACT, window())
    work = PacketWork(ARTIFACT, PacketInputs.of({"packets": [PACKET] * 3}), b"", 100)
    liar = Liar({"consumed": 0, "packets": 0})
    with pytest.raises(ProtocolError, match="did not run packet 0"):
        work.run(loaded, liar)
    assert liar.asked == 1
    loaded.close()
