"""What the compiling, the executing and the pool's side of record programs agree on."""

from __future__ import annotations

from typing import Final

from runvisor.policies.permissions import KiB

FUNCTION: Final = "rv_chunk"
"""The program's name in the compiled module."""
BODY_NAME: Final = "rv_body.c"
"""The file that holds the record program's text, beside the compiler."""
RECORDS_MAP: Final = 0
STATE_MAP: Final = 1
COLLECTED_MAP: Final = 2
"""For programs that collect: in each block a mark for each of its records, then their outputs."""
NEXT_WORD, END_WORD, BLOCK_WORD = 0, 1, 2
"""Indices in ``skb->cb``: next record, record behind the last, block of the records map."""
BLOCK_BYTES: Final = 512 * KiB
"""Largest element of the records map: what one run can reach."""


def block_records(record_bytes: int, output_bytes: int = 0) -> int:
    """Return how many records make one block, by the larger of a record and its output.

    A multiple of 8, so that blocks follow each other without gaps: the kernel rounds
    the size of an element up to 8 bytes.
    """
    return BLOCK_BYTES // max(record_bytes, output_bytes) & ~7


def blocks_for(records: int, record_bytes: int, output_bytes: int = 0) -> int:
    """Return how many blocks hold so many records; at least one."""
    return max(1, -(-records // block_records(record_bytes, output_bytes)))
