"""Components in text form, for the tests."""

from __future__ import annotations

_CORE = """
(core module $m
  (memory (export "memory") 1)
  (global $top (mut i32) (i32.const 1024))
  (func (export "realloc") (param i32 i32 i32 i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (global.set $top (i32.add (local.get $at) (local.get 3)))
    (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
      (then (if (i32.eq (i32.const -1)
          (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get 3) (i32.const 65536))))) (then (unreachable)))))
    (local.get $at))
  %s)
(core instance $i (instantiate $m))
"""
_LIFT = '(canon lift (core func $i "{0}") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))'


def same(kind: str) -> str:
    """A component that gives back a list of values of a type: their layout in memory is the same both ways."""
    core = """(func (export "same") (param i32 i32) (result i32)
      (i32.store (i32.const 16) (local.get 0)) (i32.store (i32.const 20) (local.get 1)) (i32.const 16))"""
    return (
        f'(component {_CORE % core} (type $kind {kind}) (export $t "t" (type $kind))'
        f'(func (export "same") (param "values" (list $t)) (result (list $t)) {_LIFT.format("same")}))'
    )


def numbers(core: str, signature: str = "(result u32)", more: str = "") -> str:
    """A component whose function ``run`` is given by the body of a core function, of numbers only."""
    return f'(component {_CORE % core} (func (export "run") {signature} (canon lift (core func $i "run"))) {more})'
