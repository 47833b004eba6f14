"""Captures of packets: the classic pcap format, and the same made of a list of packets.

A capture is not taken apart here: an engine walks over its packets itself, which is a
hundred times faster than Python. What is read is the header of the file, and of single
packets where an engine stopped.

Source: draft-ietf-opsawg-pcap (PCAP Capture File Format); its section 4 is the file's
header, section 5 that of a packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from runvisor.policies.errors import InvalidTask

PACKET_HEADER_BYTES: Final = 16
"""Before each packet: seconds, fraction, captured length, length on the wire."""
MAX_PACKET_BYTES: Final = 65535
"""Longest packet that any program takes."""
_FILE_HEADER_BYTES: Final = 24
_MICROSECONDS, _NANOSECONDS, _MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
_FOREIGN: Final = (
    (b"\x0a\x0d\x0d\x0a", "the capture is in the pcapng format", "convert it: editcap -F pcap IN OUT"),
    (b"\x1f\x8b", "the capture is compressed", "decompress it: gzip -d"),
    (b"\x28\xb5\x2f\xfd", "the capture is compressed", "decompress it: zstd -d"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """Packets one after the other, each behind its header."""

    data: memoryview
    """Headers and packets, without the file's own header; not a copy."""
    byte_order: Literal["<", ">"]
    """Of the numbers in the headers."""
    has_nanoseconds: bool
    """The fraction of a second is in nanoseconds, not microseconds."""
    name: str
    """What a caller calls it, for errors."""

    def length_at(self, offset: int) -> int | None:
        """Return the captured length of the packet whose header is at an offset, None behind the end of the data."""
        if offset + PACKET_HEADER_BYTES > len(self.data):
            return None
        length: int = struct.unpack_from(f"{self.byte_order}I", self.data, offset + 8)[0]
        return length

    def offsets(self) -> Iterator[tuple[int, int]]:
        """Yield where each whole packet begins and ends, headers left out."""
        read = struct.Struct(f"{self.byte_order}I").unpack_from
        at, size, data = PACKET_HEADER_BYTES, len(self.data), self.data
        while at <= size:
            end = at + read(data, at - 8)[0]
            if end > size:
                return
            yield at, end
            at = end + PACKET_HEADER_BYTES


def read_capture(data: bytes, name: str = "inputs['pcap']") -> Capture:
    """Read the header of a pcap file.

    Args:
        data: The file: of either byte order, with microseconds or nanoseconds.
        name: What a caller calls it, for errors.

    Raises:
        InvalidTask: It is none, or one of another format; the remedy says how to convert it.

    Example:
        >>> header = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
        >>> capture = read_capture(header + struct.pack(">IIII", 0, 0, 3, 3) + b"abc")
        >>> capture.byte_order, capture.has_nanoseconds, list(capture.offsets())
        ('>', False, [(16, 19)])
    """
    for magic, what, remedy in _FOREIGN:
        if data.startswith(magic):
            raise InvalidTask(what, name, remedy)
    order: Literal["<", ">"]
    for order in ("<", ">"):
        if len(data) < _FILE_HEADER_BYTES:
            break
        magic_number, major, _minor = struct.unpack_from(f"{order}IHH", data)
        if magic_number == _MODIFIED:
            raise InvalidTask("the capture is in a modified pcap format", name, "convert it: editcap -F pcap IN OUT")
        if magic_number in (_MICROSECONDS, _NANOSECONDS):
            if major != 2:
                raise InvalidTask(f"the capture is of pcap version {major}, not 2", name, "capture it anew")
            return Capture(memoryview(data)[_FILE_HEADER_BYTES:], order, magic_number == _NANOSECONDS, name)
    raise InvalidTask("these bytes are not a pcap capture", name, "pass the bytes of a file that tcpdump -w wrote")


def capture_of(packets: Sequence[object], name: str = "inputs['packets']") -> Capture:
    """Make a capture of a list of packets, at time zero.

    Raises:
        InvalidTask: One is not bytes, or is too long; names its place.

    Example:
        >>> capture_of([b"abc", b""]).length_at(0)
        3
    """
    parts: list[bytes] = []
    header = struct.Struct("<8xII").pack
    for number, packet in enumerate(packets):
        if not isinstance(packet, bytes):
            raise InvalidTask(f"packet {number} is of type {type(packet).__name__}", f"{name}[{number}]", "pass bytes")
        size = len(packet)
        parts += (header(size, size), packet)
    return Capture(memoryview(b"".join(parts)), "<", True, name)


def check_packet(capture: Capture, number: int, offset: int, least: int, most: int) -> int:
    """Check the packet at an offset, where an engine stopped; return where the next one begins.

    Args:
        capture: The capture.
        number: Of the packet, from 0, for the error.
        offset: Where its header begins.
        least: Bytes that a packet must have.
        most: Bytes that it may have.

    Raises:
        InvalidTask: The capture ends within it, or it is too short or too long.
    """
    where = f"packet {number} of {capture.name}"
    length = capture.length_at(offset)
    if length is None:
        raise InvalidTask("the capture ends within the header of a packet", where, "capture it anew, or cut it there")
    if not least <= length <= most:
        word = "shorter" if length < least else "longer"
        bound = least if length < least else most
        raise InvalidTask(
            f"packet {number} has {length} bytes and is {word} than {bound}",
            where,
            f"leave out packets of less than {least} or more than {most} bytes; the first packet is number 0",
            {"packet": number, "bytes": length, "least": least, "most": most},
        )
    end = offset + PACKET_HEADER_BYTES + length
    if end > len(capture.data):
        raise InvalidTask("the capture ends within a packet", where, "capture it anew, or cut it there")
    return end
