"""A hostile byte is not worth seventy: decoding stops at its bound, before the memory is gone."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.policies.errors import ProtocolError
from runvisor.policies.values import pack, unpack


@pytest.mark.parametrize("value", [[[]] * 50_000, [{}] * 50_000, [0] * 100_000, {str(n): n for n in range(20_000)}])
def test_many_small_values_are_refused_and_the_message_says_what_to_do(value: Any) -> None:
    data = pack(value)
    with pytest.raises(ProtocolError):
        unpack(data, max_bytes=1_000_000)
    assert unpack(data) == value


def test_honest_values_and_large_text_pass() -> None:
    value = {"rows": [{"id": n, "name": "x" * 20} for n in range(1000)], "text": "y" * 2_000_000}
    assert unpack(pack(value), max_bytes=1_000_000) == value


def test_what_is_packed_inside_counts_too() -> None:
    from runvisor.policies.values import Packed

    inner = Packed(pack([[]] * 20_000))
    with pytest.raises(ProtocolError):
        unpack(pack([inner] * 3), max_bytes=3_000_000)
