"""The reader of object files, which hostile source decides about."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.actors.wasm.objects import NotAnObject, Symbols, read_symbols

HEADER = b"\0asm\1\0\0\0"


def section(kind: int, body: bytes) -> bytes:
    return bytes([kind, len(body)]) + body


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


IMPORTS = section(2, b"\x02" + name("env") + name("memory") + b"\x02\x00\x01" + name("env") + name("far") + b"\x00\x00")
TABLE = (
    b"\x06"  # six symbols
    + b"\x00\x00\x01"
    + name("near")  # defined function 1
    + b"\x00\x02\x02"
    + name("hidden")  # local function
    + b"\x00\x10\x00"  # undefined function 0, named by its import
    + b"\x01\x10"
    + name("extern_data")
    + b"\x01\x00"
    + name("own_data")
    + b"\x00\x00\x04"
    + b"\x00\x11\x00"  # weak and undefined
)
LINKING = section(0, name("linking") + b"\x02" + section(8, TABLE))


def test_functions_of_its_own_and_what_it_lacks() -> None:
    assert read_symbols(HEADER + IMPORTS + LINKING) == Symbols(("near",), ("far", "extern_data"))


@pytest.mark.parametrize("data", [b"", b"\x7fELF", HEADER, HEADER + section(0, name("other")), HEADER + LINKING[:-3]])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnObject):
        read_symbols(data)


@given(st.binary(max_size=200))
def test_wild_bytes_do_nothing_worse(tail: bytes) -> None:
    for head in (b"", HEADER, HEADER + IMPORTS, HEADER + IMPORTS + LINKING[:20]):
        with contextlib.suppress(NotAnObject):
            read_symbols(head + tail)
