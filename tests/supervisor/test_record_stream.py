"""Record programs over chunks: the state goes from one to the next, and no more than one is held."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.wasm.compilers import ziglang
from runvisor.policies import errors
from runvisor.policies.permissions import Permissions
from runvisor.supervisor.client import Supervisor

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
    pytest.mark.skipif(ziglang.find() is None, reason=ziglang.REMEDY),
]
EVENT = np.dtype([("id", "<u4"), ("value", "<u4")])
CODE = """
struct group { u64 sum; u32 count; };
struct state { u64 total; struct group groups[4]; };
struct output { u64 before; };
int on_record(struct record *r, struct state *s, struct output *o)
{
    o->before = s->total;
    s->total += r->value;
    s->groups[r->id & 3].sum += r->value;
    s->groups[r->id & 3].count++;
    return r->value > 500;
}"""


def events(count: int) -> Any:
    made = np.zeros(count, EVENT)
    made["id"] = np.arange(count)
    made["value"] = np.random.default_rng(1).integers(0, 1000, count)
    return made


def assert_whole(value: Any, records: Any) -> None:
    assert value["selected"] == (records["value"] > 500).sum()
    assert value["state"]["total"] == records["value"].sum()
    sums = [records["value"][records["id"] & 3 == key].sum() for key in range(4)]
    assert value["state"]["groups"]["sum"].tolist() == sums


def test_chunks_answer_what_the_whole_array_answers(supervisor: Supervisor) -> None:
    records = events(1000)
    whole = supervisor.run(CODE, "c-record", inputs={"records": records, "return": "outputs"}).unwrap()
    stream = supervisor.records(CODE, np.array_split(records, 7), returns="outputs")
    outputs = [result.value["outputs"] for result in stream]
    assert np.concatenate(outputs).tolist() == whole["outputs"].tolist()
    assert (stream.selected, stream.records, stream.chunks) == (whole["selected"], 1000, 7)
    assert_whole({"selected": stream.selected, "state": stream.state}, records)


def test_an_array_is_cut_into_pieces(supervisor: Supervisor, tmp_path: Path) -> None:
    records = np.tile(events(100_000), 25)
    np.save(tmp_path / "events.npy", records)
    stream = supervisor.records(CODE, np.load(tmp_path / "events.npy", mmap_mode="r"))
    assert_whole(stream.finish(), records)
    assert stream.chunks == 2


def test_bytes_may_be_cut_anywhere(supervisor: Supervisor) -> None:
    records = events(1000)
    file = io.BytesIO(records.tobytes())
    assert_whole(supervisor.records(CODE, iter(lambda: file.read(1001), b""), dtype=EVENT).finish(), records)


def test_bytes_of_the_programs_own_struct_need_no_dtype(supervisor: Supervisor) -> None:
    records = events(100)
    chunks = [records[:30].tobytes(), bytearray(records[30:].tobytes())]
    assert_whole(supervisor.records("struct record { u32 id, value; };" + CODE, chunks).finish(), records)


def test_one_chunk_is_taken_at_a_time_so_there_may_be_any_number(supervisor: Supervisor) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Any]:
        while True:
            taken.append(len(taken))
            yield events(10)

    stream = supervisor.records(CODE, endless())
    assert taken == []
    next(stream)
    next(stream)
    assert len(taken) == 2


def test_a_state_may_be_given_and_goes_on(supervisor: Supervisor) -> None:
    stream = supervisor.records(CODE, [events(5)], state={"total": 1000})
    assert stream.finish()["state"]["total"] == 1000 + events(5)["value"].sum()
    assert supervisor.records(CODE, [], state={"total": 7}).finish() == {"selected": 0, "state": {"total": 7}}


def test_an_error_names_its_chunk_and_ends_the_stream(supervisor: Supervisor) -> None:
    stream = supervisor.records(CODE, [events(5), events(6), events(1000)], permissions={"memory_bytes": 4000})
    with pytest.raises(errors.MemoryLimitExceeded) as caught:
        stream.finish()
    assert caught.value.where.startswith("chunk 2, ")
    assert (caught.value.details["chunk"], caught.value.details["first_record"]) == (2, 11)
    assert (stream.chunks, stream.records) == (2, 11)
    assert list(stream) == []


@pytest.mark.parametrize(
    ("chunks", "dtype", "says"),
    [
        ([events(2), np.zeros(2, "<u4")], None, "chunk of dtype uint32 follows"),
        ([b"12345678", b"123"], EVENT, "last 3 bytes are not a whole record of 8"),
        ([events(2), "text"], None, "not an array"),
        ([events(2), b"12345678"], None, "have no dtype"),
    ],
)
def test_a_chunk_that_does_not_follow_is_refused(
    supervisor: Supervisor, chunks: list[Any], dtype: Any, says: str
) -> None:
    with pytest.raises(errors.InvalidTask, match=says) as caught:
        supervisor.records(CODE, chunks, dtype=dtype).finish()
    assert caught.value.where.startswith("chunk 1")


def test_the_deadline_is_one_for_all_chunks(supervisor: Supervisor) -> None:
    chunk = events(50_000)

    def endless() -> Iterator[Any]:
        while True:
            yield chunk

    stream = supervisor.records(CODE, endless(), permissions=Permissions(timeout_s=0.6))
    with pytest.raises(errors.TimeLimitExceeded) as caught:
        stream.finish()
    assert caught.value.details["chunk"] == stream.chunks
    assert stream.chunks >= 1
