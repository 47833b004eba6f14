"""What may stand in a compiled record program: each rule has a program that breaks only it."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.bytecode import ITERATOR_CALLS, MAX_INSTRUCTIONS, Loop, decode, scan
from runvisor.policies.errors import CapabilityDenied, GuestSyntaxError
from runvisor.policies.trust import Trust

Code = Sequence[bytes]


def one(opcode: int, source: int = 0, destination: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, source << 4 | destination, offset, immediate)


def load(source: int, low: int, high: int = 0) -> list[bytes]:
    return [one(0x18, source, 1, 0, low), one(0, immediate=high)]


NOTHING = one(0xB7)
GATE = (one(0xE5, offset=1),)
EXIT = one(0x95)
NEW, NEXT, DESTROY = ITERATOR_CALLS
MAPS = [*load(1, 1), one(0x85, immediate=1), *load(1, 0), one(0x85, immediate=1)]


def call(number: int, source: int = 0) -> bytes:
    return one(0x85, source, immediate=number)


def with_may_goto(body: Code = (), gate: Code = (), before: Code = ()) -> bytes:
    """Return a program as the harness makes them: maps, a gate to the end, the body, a jump back to the gate."""
    loop = [*(gate or [one(0xE5, offset=len(body) + 1)]), *body]
    return b"".join([*MAPS, *before, *loop, one(0x05, offset=-len(loop) - 1), EXIT])


def with_iterator(body: Code = ()) -> bytes:
    loop = [NOTHING, call(NEXT), *body]
    return b"".join([*MAPS, call(NEW), *loop, one(0x05, offset=-len(loop) - 1), call(DESTROY), EXIT])


def check(code: bytes, loop: Loop = "may_goto", limit: int = 100) -> int:
    return scan(code, loop, max_instructions=limit)


def test_the_cost_is_the_longest_way_from_gate_to_gate() -> None:
    short = check(with_may_goto([NOTHING] * 20))
    assert short == 22, "the gate, the body, the jump back"
    assert check(with_may_goto([one(0x15, offset=10), *[NOTHING] * 20])) == short + 1
    assert check(with_may_goto([one(0x15, offset=10), *[NOTHING] * 10, one(0x05, offset=5), *[NOTHING] * 5])) < short
    assert check(with_iterator([NOTHING] * 20), "iterator") == 23


def test_forward_jumps_and_further_jumps_back_to_the_gate_pass() -> None:
    check(with_may_goto([one(0x15, offset=1), one(0x15, offset=-3), one(0x55, offset=-4), NOTHING]))


@pytest.mark.parametrize("number", [2, 3, 4, 5, 6, 7, 12, 14, 113, 130, 166, 169, 181, 9999, -1, *ITERATOR_CALLS])
def test_a_helper_of_the_kernel_is_denied(number: int) -> None:
    with pytest.raises(CapabilityDenied, match="helper"):
        check(with_may_goto([call(number)]))


def test_the_denial_names_the_helper() -> None:
    with pytest.raises(CapabilityDenied, match="bpf_trace_printk"):
        check(with_may_goto([call(6)]))


def test_a_third_map_lookup_is_denied() -> None:
    with pytest.raises(CapabilityDenied, match="bpf_map_lookup_elem itself"):
        check(with_may_goto([*load(1, 0), call(1)]))


@pytest.mark.parametrize("number", [NEW, DESTROY])
def test_a_forged_iterator_call_is_denied(number: int) -> None:
    with pytest.raises(CapabilityDenied, match="bpf_iter_num"):
        check(with_iterator([call(number)]), "iterator")


def test_a_second_gate_is_denied() -> None:
    with pytest.raises(CapabilityDenied, match="2 loop gates"):
        check(with_iterator([call(NEXT)]), "iterator")
    with pytest.raises(CapabilityDenied, match="2 loop gates"):
        check(with_may_goto([one(0xE5, offset=0)]))


def test_a_program_without_the_gate_is_denied() -> None:
    with pytest.raises(CapabilityDenied, match="0 loop gates"):
        check(b"".join([*MAPS, EXIT]))


@pytest.mark.parametrize("source", [2, 3, 15])
def test_a_kernel_function_by_its_id_is_denied(source: int) -> None:
    with pytest.raises(CapabilityDenied, match="function of the kernel"):
        check(with_may_goto([call(64230, source)]))


def test_a_call_that_could_not_be_inlined_is_refused() -> None:
    with pytest.raises(GuestSyntaxError, match="inlined"):
        check(with_may_goto([call(-1, 1)]))


def test_an_indirect_call_is_denied() -> None:
    with pytest.raises(CapabilityDenied):
        check(with_may_goto([one(0x8D, immediate=1)]))


@pytest.mark.parametrize("source", [2, 3, 4, 5, 6])
def test_loading_any_kernel_object_but_a_map_is_denied(source: int) -> None:
    with pytest.raises(CapabilityDenied, match="kernel object"):
        check(with_may_goto(load(source, 0)))


@pytest.mark.parametrize(("low", "high"), [(2, 0), (-1, 0), (0, 8), (99, 0)])
def test_only_the_two_maps_of_the_harness_can_be_named(low: int, high: int) -> None:
    with pytest.raises(CapabilityDenied, match="kernel object"):
        check(with_may_goto(load(1, low, high)))


def test_the_address_of_data_is_refused_and_large_constants_pass() -> None:
    with pytest.raises(GuestSyntaxError, match="data outside"):
        check(with_may_goto(load(0, 16)))
    check(with_may_goto([*load(0, -5), *load(0, 0, 1), *load(0, 0x33333333, 0x33333333)]))


@pytest.mark.parametrize(
    "forged",
    [
        [one(0x18, 0, 1, 0, -5), one(0x05, immediate=1)],
        [one(0x18, 0, 1, 0, -5), one(0, 1, immediate=1)],
        [one(0x18, 0, 1, 7, -5), one(0, immediate=1)],
        [one(0x06, immediate=0)],
        [one(0xE6, offset=0)],
        [one(0xF5, offset=0)],
        [one(0x86)],
        [one(0x96)],
        [one(0x20)],
        [one(0x40)],
        [one(0x00)],
    ],
)
def test_an_instruction_that_the_compiler_does_not_emit_is_denied(forged: Code) -> None:
    with pytest.raises(CapabilityDenied):
        check(with_may_goto(forged))


@pytest.mark.parametrize(
    "gate", [one(0xE5, 1, offset=1), one(0xE5, 0, 1, offset=1), one(0xE5, offset=1, immediate=1), one(0xE5, offset=-1)]
)
def test_a_forged_gate_is_denied(gate: bytes) -> None:
    with pytest.raises(CapabilityDenied, match="forged"):
        check(with_may_goto(gate=[NOTHING, gate]))


def test_a_may_goto_is_denied_where_the_harness_uses_none() -> None:
    with pytest.raises(CapabilityDenied):
        check(with_iterator([one(0xE5, offset=0)]), "iterator")


@pytest.mark.parametrize("opcode", [0x05, 0x15, 0x55, 0x16, 0xA5, 0xD6])
def test_a_loop_of_its_own_is_refused(opcode: int) -> None:
    with pytest.raises(GuestSyntaxError, match="loop that the compiler could not unroll"):
        check(with_may_goto([NOTHING, one(opcode, offset=-2)]))
    with pytest.raises(GuestSyntaxError, match="loop that the compiler could not unroll"):
        check(with_may_goto([one(opcode, offset=-1)]))


def test_a_loop_before_the_gate_is_refused() -> None:
    # It jumps to a place before the gate, but can turn round before it gets there.
    with pytest.raises(GuestSyntaxError, match="loop"):
        check(with_may_goto(before=[NOTHING, one(0x15, offset=-2)]))


def test_a_jump_back_from_which_the_gate_can_be_missed_is_refused() -> None:
    with pytest.raises(GuestSyntaxError, match="loop"):
        check(with_may_goto([one(0x15, offset=-3)], before=[NOTHING, one(0x15, offset=1)]))


def test_a_jump_into_the_middle_of_an_instruction_is_denied() -> None:
    check(with_may_goto([one(0x15, offset=2), *load(0, -5), NOTHING]))
    with pytest.raises(CapabilityDenied, match="middle"):
        check(with_may_goto([one(0x15, offset=1), *load(0, -5), NOTHING]))


@pytest.mark.parametrize("offset", [-100, 100, 32767, -32768])
def test_a_jump_out_of_the_program_is_denied(offset: int) -> None:
    with pytest.raises(CapabilityDenied, match="out of itself"):
        check(with_may_goto([one(0x15, offset=offset)]))


def test_a_loop_may_be_laid_out_with_its_gate_at_the_end() -> None:
    body = [NOTHING, NOTHING]
    check(b"".join([*MAPS, one(0x05, offset=len(body)), *body, *GATE, one(0x05, offset=-len(body) - 2), EXIT]))


def test_a_program_beyond_the_cap_is_refused() -> None:
    code = with_may_goto([NOTHING] * 50)
    with pytest.raises(GuestSyntaxError, match="instructions, more than"):
        check(code, limit=len(code) // 8 - 1)
    check(code, limit=len(code) // 8)


def test_more_trust_allows_longer_programs() -> None:
    assert MAX_INSTRUCTIONS[Trust.UNTRUSTED] < MAX_INSTRUCTIONS[Trust.VERIFIED] < MAX_INSTRUCTIONS[Trust.TRUSTED]


@pytest.mark.parametrize("code", [b"", b"\x95", with_may_goto()[:-1]])
def test_bytes_that_are_no_whole_instructions_are_refused(code: bytes) -> None:
    with pytest.raises(GuestSyntaxError):
        decode(code)


def test_a_program_that_ends_inside_an_instruction_is_refused() -> None:
    with pytest.raises(GuestSyntaxError, match="inside an instruction"):
        check(with_may_goto() + load(0, -5)[0])


instructions = st.builds(
    one,
    st.sampled_from([0x05, 0x15, 0x18, 0x85, 0x95, 0xB7, 0xE5, 0x61, 0x7B]) | st.integers(0, 255),
    st.integers(0, 15),
    st.integers(0, 15),
    st.integers(-6, 6) | st.integers(-32768, 32767),
    st.sampled_from([0, 1, 2, *ITERATOR_CALLS]) | st.integers(-(2**31), 2**31 - 1),
)


@given(st.lists(instructions, max_size=12), st.sampled_from(["may_goto", "iterator"]))
def test_whatever_passes_takes_no_longer_than_its_cost_between_two_gates(body: list[bytes], loop: Loop) -> None:
    code = with_may_goto(body) if loop == "may_goto" else with_iterator(body)
    try:
        cost = check(code, loop)
    except (CapabilityDenied, GuestSyntaxError):
        return
    assert longest_way_between_gates(code, loop) <= cost


def longest_way_between_gates(code: bytes, loop: Loop) -> int:
    """Walk every way through the program; a way ends at a gate or an exit."""
    program = decode(code)
    is_gate = [
        instruction.opcode == 0xE5
        if loop == "may_goto"
        else (instruction.opcode, instruction.immediate) == (0x85, NEXT)
        for instruction in program
    ]
    longest: dict[int, int] = {}
    visiting: set[int] = set()

    def walk(at: int) -> int:
        if at in longest:
            return longest[at]
        assert at not in visiting, "a cycle that passes no gate"
        visiting.add(at)
        instruction = program[at]
        nexts = [at + (2 if instruction.opcode == 0x18 else 1)]
        if instruction.opcode == 0x95:
            nexts = []
        elif instruction.is_jump and instruction.opcode != 0x85:
            nexts = [at + 1 + instruction.offset] + ([] if instruction.opcode == 0x05 else nexts)
        visiting_next = [walk(there) for there in nexts if there < len(program) and not is_gate[there]]
        visiting.remove(at)
        longest[at] = 1 + max(visiting_next, default=0)
        return longest[at]

    return max(walk(start) for start in [0, *(at for at, gate in enumerate(is_gate) if gate)])


def straight(*body: bytes) -> bytes:
    return b"".join([*MAPS, *body, EXIT])


def check_straight(code: bytes) -> int:
    return scan(code, None, max_instructions=100, helpers=[5], offered=[112])


def test_a_harness_without_a_loop_has_no_gate_and_no_cycle() -> None:
    assert check_straight(straight(call(5))) == 6  # the two halves of a wide load are one step
    assert check_straight(straight(call(5), one(0x15, offset=2), NOTHING, NOTHING, NOTHING)) == 10
    for body in (one(0xE5, offset=0), call(NEXT)):
        with pytest.raises(CapabilityDenied):
            check_straight(straight(call(5), body))
    with pytest.raises(GuestSyntaxError, match="loop"):
        check_straight(straight(call(5), NOTHING, one(0x15, offset=-2)))


def test_what_is_offered_may_be_called_often_and_what_is_the_harnesss_may_not() -> None:
    check_straight(straight(call(5), call(112), call(112)))
    for number in (1, 5, 113):
        with pytest.raises(CapabilityDenied):
            check_straight(straight(call(5), call(number)))
    with pytest.raises(CapabilityDenied):
        check_straight(straight(call(5), call(112, 2)))
