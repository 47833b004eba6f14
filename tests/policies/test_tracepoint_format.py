"""Fields of tracepoints as the kernel's own texts describe them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.tracepoint_format import COMMON, MAX_ARRAY_BYTES, MAX_TEXT_BYTES, read_format, used_fields


def line(what: str, offset: int, size: int, signed: int = 0) -> str:
    return f"\tfield:{what};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n"


@pytest.mark.parametrize(
    ("what", "offset", "size", "signed", "declared"),
    [
        ("pid_t prev_pid", 24, 4, 1, "s32 prev_pid;"),
        ("unsigned int fd", 16, 8, 0, "u64 fd;"),
        ("const char * filename", 24, 8, 0, "u64 filename;"),
        ("struct sk_buff *skb", 8, 8, 0, "u64 skb;"),
        ("bool ok", 9, 1, 0, "u8 ok;"),
        ("enum kind what", 12, 4, 0, "u32 what;"),
        ("char prev_comm[16]", 8, 16, 0, "u8 prev_comm[16];"),
        ("char comm[TASK_COMM_LEN]", 8, 16, 0, "u8 comm_[16];"),
        ("unsigned long args[6]", 16, 48, 0, "u64 args[6];"),
        ("long left[3]", 12, 24, 1, "u8 left[24];"),
        ("u8 addr[28]", 10, 28, 0, "u8 addr[28];"),
        ("unsigned long many[64]", 8, 512, 0, "u64 many[16];"),
        ("struct in6_addr there", 8, 16, 0, "u8 there[16];"),
        ("u64 torn", 12, 8, 0, "u8 torn[8];"),
        ("pid_t pid", 12, 4, 1, "s32 pid_;"),
        ("__data_loc char[] name", 8, 4, 0, "u8 name[96]; u32 name_bytes;"),
        ("__data_loc u64[] addrs", 8, 4, 0, "u64 addrs[12]; u32 addrs_bytes;"),
        ("__rel_loc char[] name", 8, 4, 0, "u8 name[96]; u32 name_bytes;"),
        ("__data_loc cpumask_t mask", 8, 4, 0, "u8 mask[96]; u32 mask_bytes;"),
    ],
)
def test_a_field_has_its_size_and_sign(what: str, offset: int, size: int, signed: int, declared: str) -> None:
    (field,) = read_format(line(what, offset, size, signed))
    assert field.declaration == declared
    assert str(offset) in field.reading


@pytest.mark.parametrize(
    "text",
    [
        line("int common_pid", 4, 4, 1),
        line("char name[]", 16, 0),
        line("__data_loc char[] name", 8, 8),
        "print fmt: field:int x; offset:8;",
        line("int a; } evil(); {", 8, 4),
        line('int x y"', 8, 4),
    ],
)
def test_what_cannot_be_read_is_left_out(text: str) -> None:
    assert read_format(text) == ()


def test_only_what_a_program_names_takes_room() -> None:
    fields = read_format(line("int one", 8, 4) + line("int two", 12, 4) + line("__data_loc char[] name", 16, 4))
    assert [field.member for field in used_fields(fields, {"two", "name_bytes", "other"})] == ["two", "name"]


NAMES = st.from_regex(r"[a-z_]{1,8}", fullmatch=True) | st.sampled_from(COMMON)
TYPES = st.sampled_from(["int", "char", "unsigned long", "struct x *", "__data_loc char[]", "__rel_loc u8[]", "u16"])


@given(
    st.lists(
        st.tuples(TYPES, NAMES, st.sampled_from(["", "[]", "[4]", "[N]"]), st.integers(0, 999), st.integers(0, 999))
    )
)
def test_any_fields_become_plain_members_with_names_of_their_own(
    parts: list[tuple[str, str, str, int, int]],
) -> None:
    fields = read_format("".join(line(f"{kind} {name}{array}", at, size) for kind, name, array, at, size in parts))
    members = [field.member for field in fields]
    assert len(set(members)) == len(members)
    assert not set(members) & set(COMMON)
    for field in fields:
        assert re.fullmatch(r"[us](8|16|32|64) \w+(\[\d+\])?;( u32 \w+_bytes;)?", field.declaration)
        assert 0 < field.room_bytes <= max(MAX_ARRAY_BYTES, MAX_TEXT_BYTES)
        assert field.offset >= 8


@given(st.text())
def test_any_text_gives_fields_or_none(text: str) -> None:
    read_format(text)
    read_format(line(text, 8, 4))
