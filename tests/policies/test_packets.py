"""What a packet task may hold: its inputs, and the text of its program."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.policies.errors import GuestSyntaxError, InvalidTask
from runvisor.policies.packet_programs import parse_program
from runvisor.policies.packets import PacketInputs
from tests.policies.test_captures import pcap

FILTER = "int on_packet(struct packet *p, struct state *s) { return -1; }"
XDP = "int on_xdp(void *data, void *data_end, struct state *s) { return XDP_PASS; }"


def test_inputs_come_as_a_capture_or_as_a_list() -> None:
    inputs = PacketInputs.of({"pcap": pcap([b"abc"], ">"), "state": {"n": 1}, "per_packet": True})
    assert (inputs.capture.byte_order, inputs.state, inputs.per_packet, inputs.changed) == (">", {"n": 1}, True, False)
    assert list(PacketInputs.of({"packets": (b"abc", b"d"), "changed": True}).capture.offsets()) == [(16, 19), (35, 36)]


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        (None, "inputs"),
        ([b"abc"], "inputs"),
        ({}, "inputs"),
        ({"pcap": pcap([]), "packets": []}, "inputs"),
        ({"packets": [], "verdicts": True}, "inputs"),
        ({"packets": b"abc"}, "inputs['packets']"),
        ({"packets": [1]}, "inputs['packets'][0]"),
        ({"pcap": "text"}, "inputs['pcap']"),
        ({"packets": [], "state": [1]}, "inputs['state']"),
        ({"packets": [], "per_packet": 1}, "inputs['per_packet']"),
        ({"packets": [], "changed": "yes"}, "inputs['changed']"),
    ],
)
def test_other_inputs_are_refused_with_their_place(inputs: Any, where: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        PacketInputs.of(inputs)
    assert caught.value.where == where
    assert caught.value.remedy


def test_the_name_of_the_function_says_what_a_program_is() -> None:
    assert (parse_program(FILTER).kind, parse_program(XDP).kind) == ("filter", "xdp")
    assert parse_program("struct state { u32 a; u64 b[3]; };" + XDP).state_bytes == 32


@pytest.mark.parametrize(
    ("source", "what", "where"),
    [
        ("int main(void) { return 0; }", "no function on_packet or on_xdp", "1:1"),
        (FILTER + "\n" + XDP, "both on_packet and on_xdp", "2:5"),
        ("#include <linux/if_ether.h>\n" + FILTER, "#include is not part of the packet language", "1:1"),
        ("u64 seen;\n" + FILTER, "a variable outside every function", "1:1"),
        (FILTER.replace("-1", "0.5"), "no floating point in the packet language", "1:59"),
        (FILTER.replace("return", "asm(); return"), "'asm' is not part of the packet language", "1:52"),
        ("struct state { struct iphdr *p; };" + FILTER, "struct", "1:23"),
        (f"struct state {{ u64 a[{1 << 23}], b; }};" + FILTER, "a state of", "struct state"),
    ],
)
def test_what_the_language_does_not_have_is_refused_with_its_place(source: str, what: str, where: str) -> None:
    with pytest.raises(GuestSyntaxError, match=what) as caught:
        parse_program(source)
    assert caught.value.where == where


def test_the_state_is_set_and_shown_by_field() -> None:
    program = parse_program("struct state { u32 a; s16 b[2]; };" + FILTER)
    assert program.state_value(program.initial_state({"b": [1, -2]})) == {"a": 0, "b": [1, -2]}
    for fields in ({"c": 1}, {"a": -1}, {"b": [1]}):
        with pytest.raises(InvalidTask):
            program.initial_state(fields)
    stateless = parse_program(FILTER)
    assert stateless.initial_state({}) == b""
    with pytest.raises(InvalidTask, match="no state to set"):
        stateless.initial_state({"a": 1})
