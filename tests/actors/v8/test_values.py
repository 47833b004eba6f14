"""Values in and out: what crosses, as what, and large inputs without a copy."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from runvisor.actors.jail.child import Child
from runvisor.actors.jail.probe import probe_jail
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.policies import errors
from runvisor.policies.permissions import MiB
from runvisor.policies.values import pack, unpack
from tests.actors.v8.conftest import Run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


@pytest.mark.parametrize(
    ("inputs", "code", "value"),
    [
        (b"ab", "[inputs instanceof Uint8Array, inputs[1]]", [True, 98]),
        ({"a": [b"", b"x"]}, "inputs.a.map((b) => b.length)", [0, 1]),
        (2**60 + 1, "[typeof inputs, String(inputs + 1n)]", ["bigint", str(2**60 + 2)]),
        (2**53, "typeof inputs", "number"),
        (-(2**70), "String(inputs)", str(-(2**70))),
        ([2**53 + 1, -(2**53) - 1, 2**63, -(2**63)], "inputs.map((x) => typeof x)", ["bigint"] * 4),
        ([2**53, -(2**53), 1], "inputs.map((x) => typeof x)", ["number"] * 3),
        ([math.nan, math.inf, -math.inf], "inputs.map(String)", ["NaN", "Infinity", "-Infinity"]),
        (-0.0, "Object.is(inputs, -0)", True),
        ({"x": "1234567890123456789"}, "inputs.x.length", 19),
        ({1: "a"}, "inputs['1']", "a"),
        (
            np.arange(6.0).reshape(2, 3),
            "[inputs.length, inputs[1][2], inputs[0].constructor.name]",
            [2, 5, "Float64Array"],
        ),
        (np.array([True, False]), "inputs", [True, False]),
        (np.array(["a", "b"]), "inputs", ["a", "b"]),
        (np.asfortranarray(np.arange(4).reshape(2, 2)), "Number(inputs[1][0])", 2),
        (np.zeros(0), "inputs.length", 0),
        ({"__proto__": 1, "a": b""}, "Object.keys(inputs).sort()", ["__proto__", "a"]),
    ],
)
def test_what_an_input_arrives_as(run: Run, inputs: Any, code: str, value: Any) -> None:
    assert run(code, inputs).unwrap() == value


@pytest.mark.parametrize("count", [2, 100_000])
def test_what_a_64_bit_array_arrives_as_depends_on_its_dtype_and_not_on_its_values(run: Run, count: int) -> None:
    look = "[inputs.constructor.name, typeof inputs[1], String(inputs[1] + 1n), Number(inputs[1]) + 1]"
    assert run(look, np.arange(count)).unwrap() == ["BigInt64Array", "bigint", "2", 2]
    assert run(look, np.arange(count, dtype="u8")).unwrap()[0] == "BigUint64Array"
    assert "BigInt" in str(run("inputs[1] + 1", np.arange(count)).error)
    assert run("inputs[1] + 1", np.arange(count).astype("i4")).unwrap() == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_go_in_and_out_as_they_are(run: Run, dtype: str) -> None:
    array = np.arange(5, dtype=dtype)
    value = run("inputs", array).unwrap()
    if dtype == "u1":
        assert value == array.tobytes()
    else:
        assert value.dtype == array.dtype
        assert value.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("new Uint8Array([1, 2])", b"\x01\x02"),
        ("new Uint8Array([1, 2, 3, 4]).subarray(1, 3)", b"\x02\x03"),
        ("new Uint8Array([7]).buffer", b"\x07"),
        ("new DataView(new ArrayBuffer(3), 1)", b"\0\0"),
        ("({a: [new Uint8ClampedArray([300])]})", {"a": [b"\xff"]}),
        ("[1n, -(2n ** 64n), 2n ** 70n]", [1, -(2**64), 2**70]),
        ("new Map([['a', 1], ['b', new Map([[1, 2]])]])", {"a": 1, "b": [[1, 2]]}),
        ("new Set([1, new Set()])", [1, []]),
        ("[NaN, Infinity, -0, undefined, () => 1]", [None, None, 0, None, None]),
        ("({a: undefined, f() {}, d: new Date(0)})", {"d": "1970-01-01T00:00:00.000Z"}),
        ("new Map([['__proto__', 1]])", {"__proto__": 1}),
        ("[1e20, 2 ** 53, -1e20, 1e300]", [10**20, 2**53, -(10**20), 1e300]),
        ("[10n, 1e20, true]", [10, 10**20, True]),
        ("const o = {}; Object.defineProperty(o, 'toJSON', {value: () => 5}); o", 5),
    ],
)
def test_what_a_value_leaves_as(run: Run, code: str, value: Any) -> None:
    assert run(code).unwrap() == value


def test_a_task_itself_sees_plain_json(run: Run) -> None:
    code = "let threw; try { JSON.stringify(1n) } catch (e) { threw = e.name }; [threw, JSON.stringify(new Map())]"
    assert run(code).unwrap() == ["TypeError", "{}"]


def test_a_changed_species_or_iterator_forges_no_bytes(run: Run) -> None:
    code = (
        "class Evil extends Uint8Array { static get [Symbol.species]() { throw new Error('trap') } }"
        "Object.defineProperty(Uint8Array.prototype, 'length', {get: () => 1 << 30});"
        "ArrayBuffer.prototype.slice = () => { throw new Error('trap') }; new Evil([1, 2, 3])"
    )
    assert run(code).unwrap() == b"\x01\x02\x03"


@pytest.mark.parametrize(
    "code", ["'\\ud800'", "({a: ['\\udfff', 10n]})", "let r = []; for (let i = 0; i < 300; i++) r = [r]; r"]
)
def test_what_no_frame_can_hold_is_refused_by_name(run: Run, code: str) -> None:
    assert isinstance(run(code).error, errors.UnserializableValue)


def test_a_value_beyond_the_reply_is_refused(run: Run) -> None:
    error = run("'x'.repeat(60 << 20)", memory_bytes=1 << 30, timeout_s=20.0).error
    assert isinstance(error, errors.UnserializableValue)
    assert "return less" in error.remedy


@pytest.fixture
def child() -> Iterator[Child]:
    zygote = Zygote(JailSpec("v8", "runvisor.actors.v8.guest"))
    zygote.start()
    child = zygote.spawn(memory_bytes=64 * MiB)
    yield child
    child.close()
    zygote.close()


def _ask(child: Child, code: str, array: np.ndarray[Any, Any]) -> dict[str, Any]:
    buffers: list[Any] = []
    inputs = pack({"array": array}, buffers)
    fd = os.memfd_create("input", os.MFD_ALLOW_SEALING)
    os.write(fd, buffers[0])
    frame = {
        "code": code,
        "inputs": inputs,
        "cpu_s": 10.0,
        "memory_bytes": 64 * MiB,
        "shared": [["array", array.nbytes]],
    }
    child.channel.send(frame, [fd])
    os.close(fd)
    assert child.channel.receive() == {"op": "started"}
    reply = child.channel.receive()
    assert reply is not None
    return reply


def test_a_large_input_is_mapped_and_not_copied(child: Child) -> None:
    # 256 MiB are in the task's view, in a process that may use 64: a copy would not fit.
    array = np.arange(32 * MiB, dtype="f8")
    reply = _ask(child, "const a = inputs.array; a[0] = 7; [a.length, a[0], a[a.length - 1]]", array)
    assert unpack(reply["value"]) == [32 * MiB, 7, 32 * MiB - 1]
    peak = child.usage().peak_memory_bytes
    assert peak is None or peak < 64 * MiB


def test_writing_to_a_shared_input_changes_only_the_tasks_own_copy(child: Child) -> None:
    array = np.zeros(1 << 16)
    reply = _ask(child, "inputs.array.fill(1); inputs.array[5]", array)
    assert unpack(reply["value"]) == 1
    assert not array.any()
