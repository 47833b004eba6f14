from __future__ import annotations

import pytest
import wasmtime

from runvisor.actors.wasm.images.binary import Unsupported, read_exports, read_sections
from runvisor.actors.wasm.images.snapshot import instrument, rewrite

COUNTER = """
(module
  (memory (export "memory") 1 4)
  (global $small (mut i32) (i32.const -7))
  (global $big (mut i64) (i64.const 1))
  (global $real (mut f64) (f64.const 0.5))
  (global $fixed i32 (i32.const 9))
  (data (i32.const 8) "before")
  (func (export "start_up")
    (global.set $small (i32.const -2147483648))
    (global.set $big (i64.const -1234567890123456789))
    (global.set $real (f64.const -0.125))
    (i32.store (i32.const 70000) (i32.const 77))
    (i32.store8 (i32.const 8) (i32.const 66)))
  (func (export "grow") (drop (memory.grow (i32.const 1))))
  (func (export "small") (result i32) (global.get $small))
  (func (export "big") (result i64) (global.get $big))
  (func (export "real") (result f64) (global.get $real))
  (func (export "fixed") (result i32) (global.get $fixed)))
"""


def started(keep: tuple[str, ...]) -> tuple[wasmtime.Store, wasmtime.Instance, bytes]:
    module = bytes(wasmtime.wat2wasm(COUNTER))
    instrumented, names = instrument(module)
    store = wasmtime.Store()
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, instrumented), []).exports(store)
    for name in ("grow", "start_up"):
        function = exports[name]
        assert isinstance(function, wasmtime.Func)
        function(store)
    memory = exports["memory"]
    assert isinstance(memory, wasmtime.Memory)
    values = {}
    for name, index in names.items():
        found = exports[name]
        assert isinstance(found, wasmtime.Global)
        values[index] = found.value(store)
    image = rewrite(module, bytes(memory.read(store)), values, keep)
    return store, wasmtime.Instance(store, wasmtime.Module(store.engine, image), []), image


def call(store: wasmtime.Store, instance: wasmtime.Instance, name: str) -> float:
    function = instance.exports(store)[name]
    assert isinstance(function, wasmtime.Func)
    return function(store)


def test_an_instance_of_the_snapshot_begins_where_the_start_up_ended() -> None:
    store, instance, _ = started(("memory", "small", "big", "real", "fixed"))
    assert call(store, instance, "small") == -2147483648
    assert call(store, instance, "big") == -1234567890123456789
    assert call(store, instance, "real") == -0.125
    assert call(store, instance, "fixed") == 9
    memory = instance.exports(store)["memory"]
    assert isinstance(memory, wasmtime.Memory)
    assert memory.size(store) == 2  # it grew at start-up
    assert bytes(memory.read(store, 8, 14)) == b"Before"
    assert bytes(memory.read(store, 70000, 70004)) == b"M\0\0\0"


def test_only_the_exports_that_are_needed_remain() -> None:
    _, _, image = started(("memory", "small"))
    exports = read_exports(dict(read_sections(image))[7])
    assert [item.name for item in exports] == ["memory", "small"]


def test_a_module_with_data_that_is_laid_out_later_is_refused() -> None:
    text = '(module (memory (export "memory") 1) (data "later"))'
    with pytest.raises(Unsupported, match="data segment"):
        rewrite(bytes(wasmtime.wat2wasm(text)), bytes(65536), {}, ("memory",))


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(Unsupported, match="core module"):
        instrument(b"\0asm\x0d\0\1\0")
