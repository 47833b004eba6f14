"""What the kernel counted, read and passed on without loss, and never believed unread."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.errors import ProtocolError
from runvisor.policies.result import Isolation, Result, Usage
from runvisor.policies.witness import CALLS, DENIED, REFUSED, TABLES_AT, WORDS, Attempt, KernelUsage, read_words

_TABLES = 1 + len(REFUSED) + len(DENIED)


@given(
    st.dictionaries(
        st.tuples(st.integers(0, _TABLES - 1), st.integers(0, CALLS - 1)), st.integers(1, 1 << 63), max_size=20
    )
)
def test_each_counter_is_told_once_under_its_name(counts: dict[tuple[int, int], int]) -> None:
    words = np.zeros(WORDS, np.uint64)
    for (table, row), count in counts.items():
        words[TABLES_AT + table * CALLS + row] = count
    usage = read_words(words, {number: f"name{number}" for number in range(CALLS - 1)})
    errors = (*REFUSED, *DENIED)

    def name(row: int) -> str:
        return "other" if row == CALLS - 1 else f"name{row}"

    calls = {name(row): count for (table, row), count in counts.items() if table == 0}
    assert dict(usage.calls) == calls
    assert usage.syscalls == sum(calls.values())
    tried = {(name(row), errors[t - 1], t <= len(REFUSED)): count for (t, row), count in counts.items() if t}
    found = {(a.call, a.error, True): a.count for a in usage.refused}
    found |= {(a.call, a.error, False): a.count for a in usage.denied}
    assert found == tried
    assert usage.denials == sum(tried.values())
    assert KernelUsage.from_wire(usage.to_wire()) == usage


def test_a_number_without_a_name_stands_for_itself() -> None:
    words = np.zeros(WORDS, np.uint64)
    words[TABLES_AT + 336] = 2
    assert read_words(words, {}).calls == (("call 336", 2),)


def test_the_difference_of_two_readings_holds_when_a_counter_wrapped() -> None:
    before, after = np.zeros(WORDS, np.uint64), np.zeros(WORDS, np.uint64)
    before[1], after[1] = np.uint64(2**64 - 1), 4
    assert read_words(after - before, {}).read_bytes == 5


def test_a_result_carries_it_to_and_fro() -> None:
    usage = KernelUsage(
        3, 0.5, 1, 10, 20, (("read", 3),), (Attempt("bpf", "EPERM", 2),), (Attempt("open", "EACCES", 1),)
    )
    result = Result(Isolation("none", witness="kernel"), usage=Usage(kernel=usage))
    assert Result.from_wire(result.to_wire()) == result
    assert result.to_document()["usage"]["kernel"]["refused"] == ({"call": "bpf", "error": "EPERM", "count": 2},)


@pytest.mark.parametrize(
    "change",
    [
        {"syscalls": -1},
        {"syscalls": "3"},
        {"cpu_s": None},
        {"calls": "read"},
        {"calls": [["read", -1]]},
        {"calls": [["read", True]]},
        {"calls": [["read"]]},
        {"refused": [["bpf", "EPERM", 1.5]]},
        {"denied": [["x", "y", 1]] * 4000},
    ],
)
def test_what_no_kernel_counted_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        KernelUsage.from_wire({**KernelUsage().to_wire(), **change})
