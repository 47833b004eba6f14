"""What the compiling, the executing and the pool's side of packet programs agree on.

The window is one element of a map, which all three see: a part of the capture, as it lies
in its file; then more bytes than the longest packet has, all zero, so that an offset from a
packet needs no further check; then the verdicts, one word for each packet.
"""

from __future__ import annotations

import struct
from typing import Final

from runvisor.policies.captures import PACKET_HEADER_BYTES
from runvisor.policies.permissions import KiB, MiB

WINDOW_MAP: Final = 0
STATE_MAP: Final = 1
CURSOR_MAP: Final = 2
CAPTURE_BYTES: Final = 952 * KiB
"""The part of a capture that a window shows at once."""
REACH_BYTES: Final = 1 * MiB
"""What an offset from any packet reaches: a power of two."""
ZEROS_AT: Final = REACH_BYTES - 4 * KiB
"""Where a read beyond the end of a packet reads."""
MOST_PACKETS: Final = CAPTURE_BYTES // PACKET_HEADER_BYTES
VERDICT_BYTES: Final = 4
VERDICTS_AT: Final = REACH_BYTES + 8
"""Behind what a read at the last place reaches."""
WINDOW_BYTES: Final = VERDICTS_AT + VERDICT_BYTES * MOST_PACKETS
CURSOR: Final = struct.Struct("<8I")
"""``struct rv_cursor``: offset of the next packet, packets left to do, bytes of capture in the window, packets
done, whether its numbers are big-endian, the unit of its fractions in ns, bytes of the XDP frame, whether the
frame goes back into the window."""
