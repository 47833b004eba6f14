"""Finding functions in BTF: on a small one made by hand, on the kernel's, and on noise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.ebpf import btf


def made(types: bytes, texts: bytes) -> bytes:
    return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(texts)) + types + texts


def of_kind(name: int, kind: int, members: int = 0, rest: int = 0) -> bytes:
    return struct.pack("<III", name, kind << 24 | members, 0) + bytes(rest)


TEXTS = b"\0first\0second\0notsecond\0"


def test_functions_are_found_behind_types_of_every_size() -> None:
    types = b"".join(
        [
            of_kind(0, 1, 0, 4),  # INT
            of_kind(0, 2),  # PTR
            of_kind(0, 3, 0, 12),  # ARRAY
            of_kind(0, 4, 2, 24),  # STRUCT
            of_kind(0, 5, 1, 12),  # UNION
            of_kind(0, 6, 3, 24),  # ENUM
            of_kind(0, 13, 2, 16),  # FUNC_PROTO
            of_kind(7, 12),  # FUNC "second"
            of_kind(0, 14, 0, 4),  # VAR
            of_kind(0, 15, 2, 24),  # DATASEC
            of_kind(0, 17, 0, 4),  # DECL_TAG
            of_kind(0, 18),  # TYPE_TAG
            of_kind(0, 19, 2, 24),  # ENUM64
            of_kind(1, 12),  # FUNC "first"
        ]
    )
    assert btf.function_ids(made(types, TEXTS), ["first", "second", "third"]) == {"second": 8, "first": 14}


def test_tracepoints_are_found_by_the_types_that_are_named_after_them() -> None:
    texts = b"\0one\0btf_trace_one\0btf_trace_two\0"
    types = of_kind(1, 8) + of_kind(5, 12) + of_kind(5, 8) + of_kind(19, 8)
    assert btf.tracepoint_ids(made(types, texts), ["two", "one", "three"]) == {"one": 3, "two": 4}


def test_a_type_of_another_kind_with_the_name_is_no_function() -> None:
    assert btf.function_ids(made(of_kind(1, 4), TEXTS), ["first"]) == {}


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb", bytes(64)])
def test_bytes_that_are_not_btf_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="BTF"):
        btf.function_ids(data, ["first"])


def referring(name: int, kind: int, to: int) -> bytes:
    return struct.pack("<III", name, kind << 24, to)


def test_a_raw_tracepoint_has_the_arguments_of_its_function_but_the_kernels_own() -> None:
    texts = b"\0btf_trace_one\0btf_trace_odd\0other\0"
    types = b"".join(
        [
            of_kind(0, 13, 3, 24),  # 1: FUNC_PROTO of three
            referring(0, 2, 1),  # 2: PTR to it
            referring(1, 8, 2),  # 3: TYPEDEF "btf_trace_one"
            referring(15, 8, 1),  # 4: TYPEDEF "btf_trace_odd", of no pointer
            referring(29, 8, 2),  # 5: TYPEDEF "other"
            referring(15, 8, 99),  # 6: of a type that is not there
        ]
    )
    assert btf.raw_tracepoints(made(types, texts)) == {"one": 2}


@given(st.binary(max_size=200))
def test_noise_ends(noise: bytes) -> None:
    assert btf.function_ids(made(noise, TEXTS), ["third"]) == {}


def structure(name: int, *members: tuple[int, int, int], kind: int = 4, bit_fields: bool = False) -> bytes:
    head = struct.pack("<III", name, bit_fields << 31 | kind << 24 | len(members), 0)
    return head + b"".join(struct.pack("<III", *member) for member in members)


def test_members_are_found_also_in_anonymous_unions_and_behind_bit_fields() -> None:
    first, second, notsecond = 1, 7, 14
    types = b"".join(
        [
            of_kind(0, 1, 0, 4),  # 1: INT
            structure(0, (second, 1, 32), kind=5),  # 2: a union without a name
            structure(first, (0, 2, 64), (notsecond, 1, 160)),  # 3: struct first
            structure(second, (first, 1, 3 << 24 | 40), bit_fields=True),  # 4: struct second
        ]
    )
    asked = [("first", "second"), ("first", "notsecond"), ("second", "first"), ("second", "second"), ("third", "x")]
    assert btf.member_offsets(made(types, TEXTS), asked) == {
        ("first", "second"): 12,
        ("first", "notsecond"): 20,
        ("second", "first"): 5,
    }


def test_a_struct_that_holds_itself_is_walked_to_a_bound() -> None:
    assert btf.member_offsets(made(structure(1, (0, 1, 0)), TEXTS), [("first", "second")]) == {}


@pytest.mark.skipif(not btf.VMLINUX.exists(), reason="this kernel carries no type information")
def test_the_kernels_own_functions_are_found() -> None:
    found = btf.function_ids(btf.VMLINUX.read_bytes(), ["bpf_iter_num_new", "no_such_function"])
    assert list(found) == ["bpf_iter_num_new"]
