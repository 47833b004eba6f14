from __future__ import annotations

import wasmtime

from runvisor.actors.wasm.images.binary import unsigned
from runvisor.actors.wasm.images.functions import add_function, exported_functions

TWICE = """
(module
  (import "host" "next" (func $next (result i32)))
  (import "host" "base" (global $base i32))
  (func $hidden (export "sum") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "next") (result i32) (i32.add (call $next) (global.get $base))))
"""
LOCAL_GET, LOCAL_SET, CALL = b"\x20", b"\x21", b"\x10"


def test_an_added_function_calls_those_that_were_there() -> None:
    module = bytes(wasmtime.wat2wasm(TWICE))
    functions = exported_functions(module)
    body = [LOCAL_GET, b"\0", CALL, unsigned(functions["next"]), CALL, unsigned(functions["sum"])]
    kept = [LOCAL_SET, b"\1", LOCAL_GET, b"\1"]
    longer = add_function(module, "both", parameters=1, variables=1, body=b"".join(body + kept))
    store = wasmtime.Store()
    number = wasmtime.FuncType([], [wasmtime.ValType.i32()])
    base = wasmtime.Global(store, wasmtime.GlobalType(wasmtime.ValType.i32(), False), wasmtime.Val.i32(100))
    imports = [wasmtime.Func(store, number, lambda: 7), base]
    exports = wasmtime.Instance(store, wasmtime.Module(store.engine, longer), imports).exports(store)
    both, total = exports["both"], exports["sum"]
    assert isinstance(both, wasmtime.Func)
    assert isinstance(total, wasmtime.Func)
    assert both(store, 1000) == 1107
    assert total(store, 2, 3) == 5
    assert set(exported_functions(longer)) == {"sum", "next", "both"}
