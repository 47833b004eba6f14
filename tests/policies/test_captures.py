"""pcap files of every kind, and what is no pcap file: a capture is read, or refused with the way out."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.captures import Capture, capture_of, check_packet, read_capture
from runvisor.policies.errors import InvalidTask

MAGIC = {False: 0xA1B2C3D4, True: 0xA1B23C4D}


def pcap(packets: list[bytes], order: str = "<", *, nanoseconds: bool = False, major: int = 2) -> bytes:
    header = struct.pack(f"{order}IHHiIII", MAGIC[nanoseconds], major, 4, 0, 0, 65535, 1)
    return header + b"".join(
        struct.pack(f"{order}IIII", number, 0, len(packet), len(packet)) + packet
        for number, packet in enumerate(packets)
    )


@given(st.lists(st.binary(max_size=80), max_size=8), st.sampled_from("<>"), st.booleans())
def test_every_kind_of_pcap_is_read(packets: list[bytes], order: str, nanoseconds: bool) -> None:
    capture = read_capture(pcap(packets, order, nanoseconds=nanoseconds))
    assert [capture.data[begin:end] for begin, end in capture.offsets()] == packets
    assert (capture.byte_order, capture.has_nanoseconds) == (order, nanoseconds)
    assert [capture_of(packets).data[begin:end] for begin, end in capture_of(packets).offsets()] == packets


@pytest.mark.parametrize(
    ("data", "what", "remedy"),
    [
        (bytes.fromhex("0a0d0d0a1c0000004d3c2b1a"), "pcapng", "editcap -F pcap"),
        (bytes.fromhex("1f8b0800"), "compressed", "gzip -d"),
        (bytes.fromhex("28b52ffd00"), "compressed", "zstd -d"),
        (struct.pack("<IHHiIII", 0xA1B2CD34, 2, 4, 0, 0, 65535, 1), "modified", "editcap"),
        (pcap([], major=3), "version 3", "anew"),
        (pcap([])[:23], "not a pcap", "tcpdump -w"),
        (b"", "not a pcap", "tcpdump -w"),
        (b"GIF89a" * 9, "not a pcap", "tcpdump -w"),
    ],
)
def test_what_is_no_pcap_is_refused_with_the_way_out(data: bytes, what: str, remedy: str) -> None:
    with pytest.raises(InvalidTask, match=what) as caught:
        read_capture(data)
    assert remedy in caught.value.remedy
    assert caught.value.where == "inputs['pcap']"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_capture_or_are_refused(data: bytes) -> None:
    for made in (data, pcap([]) + data):
        try:
            capture = read_capture(made)
        except InvalidTask:
            continue
        ends = [0, *(end for _, end in capture.offsets())]
        assert ends == sorted(ends)
        assert ends[-1] <= len(capture.data)


def stopped(capture: Capture, offset: int, least: int = 14, most: int = 100) -> str:
    with pytest.raises(InvalidTask) as caught:
        check_packet(capture, 7, offset, least, most)
    assert "packet 7" in caught.value.where
    return caught.value.what


def test_a_packet_that_cannot_run_is_named_with_its_size() -> None:
    assert stopped(capture_of([b"x" * 13]), 0) == "packet 7 has 13 bytes and is shorter than 14"
    assert stopped(capture_of([b"x" * 101]), 0) == "packet 7 has 101 bytes and is longer than 100"
    whole = capture_of([b"x" * 20, b"y" * 20])
    assert check_packet(whole, 0, 0, 14, 100) == 36
    for cut, what in ((71, "within a packet"), (51, "within the header"), (37, "within the header")):
        assert what in stopped(Capture(whole.data[:cut], "<", True, "capture"), 36)


def test_a_packet_of_a_list_that_is_no_bytes_is_named() -> None:
    with pytest.raises(InvalidTask, match="packet 1 is of type str") as caught:
        capture_of([b"", "text"])
    assert caught.value.where == "inputs['packets'][1]"
