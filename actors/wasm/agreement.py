"""What the host's and the engine's side agree on."""

from __future__ import annotations

from typing import Final

from runvisor.policies.permissions import KiB, MiB

OPEN: Final = "rv_open"
"""Export: takes bytes, grows the memory by them, returns their address, or 0 for want of memory."""
CHUNK: Final = "rv_chunk"
"""Export: takes the addresses of records and state and a count, and of a program that collects also those of
marks and outputs; returns how many were selected."""
WINDOW_BYTES: Final = 1 * MiB
"""Records that pass at once: few calls, and still in the cache between the two copies."""
MIN_STATE_BYTES: Final = 64
"""A program without state gets a pointer to this much; the state's room is a multiple of it."""
HARNESS_BYTES: Final = 1 * MiB
"""For the stack and whatever else the linker lays out; beside records and state."""

MAX_MODULE_BYTES: Final = 32 * MiB
"""Of a module that somebody sent."""
IN_ENGINE_BYTES: Final = 8 * KiB
"""Up to this size a module is compiled in the engine that runs it: 9 ms at most, for code of ordinary density,
where a compiler process of its own takes 19 ms and a core for as long."""

CALM_S: Final = 0.05
"""How long after two executions at once an end does not poll: others need the cores and the GIL."""
