"""What the programs, the executor and the pool's side of an observation agree on."""

from __future__ import annotations

import struct
from typing import Final

TARGETS_MAP: Final = 0
"""Hash: the threads that are observed, by their ids."""
CONTROL_MAP: Final = 1
"""Array of one `CONTROL`."""
TABLE_MAP: Final = 2
"""Hash: what is found."""
PENDING_MAP: Final = 3
"""Hash: by thread, what has begun and not ended."""

CONTROL: Final = struct.Struct("<QQQ")
"""When it ends, by the monotonic clock in ns; whether children are followed; events lost."""
THREAD: Final = struct.Struct("<I")
MARK: Final = b"\1"
"""The value of a thread that is observed."""
MAX_THREADS: Final = 16384
MESSAGE_BYTES: Final = 1 << 20
"""After so many bytes of entries a message ends."""
