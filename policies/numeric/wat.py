"""The fixed part of every compiled module: memory, lists and what cannot go on.

A list is the address of a header of three 32-bit words: where the elements lie,
how many there are, how many fit. Memory is only ever taken, and given back as a
whole when the call has ended. Addresses below `HEAP` are a mailbox: what the
module asks of the host, and its arguments.
"""

from __future__ import annotations

from typing import Final

HEAP: Final = 64
"""Where lists begin."""
ASK_AT: Final = 0
"""Mailbox: which question, a 32-bit number; `ASK_INTERRUPTS`, or an index into `MATH`."""
WHY_AT: Final = 4
"""Mailbox: why the call stopped, a 32-bit index into `REASONS`; the host clears it before a call."""
OPERANDS_AT: Final = 8
"""Mailbox: two 64-bit floats; the host writes its answer over the first."""
ASK_INTERRUPTS: Final = 1000
MATH: Final = ("pow", "sin", "cos", "tan", "exp", "log", "atan2", "atan", "log2", "log10", "sinh", "cosh", "tanh",
               "asin", "acos", "hypot", "exp2", "fmod", "math.pow")  # fmt: skip
"""Functions whose last bit depends on the machine's mathematics library, so the host computes them."""
REASONS: Final = (
    "",
    "an integer beyond 64 bits",
    "an index out of range",
    "a division by zero",
    "an integer beyond 2**53 beside a float",
    "a local without a value",
    "a value outside a function's domain",
    "an exception of its own",
    "memory",
    "recursion depth",
    "a float where an integer is needed",
)
"""Why a compiled call stopped, by the number that it leaves at `WHY_AT`."""
OVERFLOW, INDEX, ZERO, PRECISION, UNBOUND, DOMAIN, RAISED, MEMORY, DEPTH, KIND = range(1, len(REASONS))
POLL_EVERY: Final = 1 << 20
"""Rounds of a loop between two looks for an interrupt."""
LIMIT_BYTES: Final = 1 << 31
"""No list is larger."""


def stop(reason: int) -> str:
    """Return code that ends the call for a reason."""
    return f"(i32.store (i32.const {WHY_AT}) (i32.const {reason})) unreachable"


PRELUDE: Final = f"""
(import "host" "memory" (memory 1))
(import "host" "ask" (func $ask))
(global $top (mut i32) (i32.const {HEAP}))
(global $depth (mut i32) (i32.const 0))
(global $calls (mut i32) (i32.const {POLL_EVERY}))
(func $poll
  (i32.store (i32.const {ASK_AT}) (i32.const {ASK_INTERRUPTS}))
  (call $ask))
(func $math (param $which i32) (param $x f64) (param $y f64) (result f64)
  (i32.store (i32.const {ASK_AT}) (local.get $which))
  (f64.store (i32.const {OPERANDS_AT}) (local.get $x))
  (f64.store offset=8 (i32.const {OPERANDS_AT}) (local.get $y))
  (i32.store (i32.const {WHY_AT}) (i32.const {DOMAIN}))
  (call $ask)
  (i32.store (i32.const {WHY_AT}) (i32.const 0))
  (f64.load (i32.const {OPERANDS_AT})))
(func $enter
  (global.set $depth (i32.sub (global.get $depth) (i32.const 1)))
  (if (i32.le_s (global.get $depth) (i32.const 0)) (then {stop(DEPTH)}))
  (global.set $calls (i32.sub (global.get $calls) (i32.const 1)))
  (if (i32.eqz (global.get $calls)) (then (call $poll) (global.set $calls (i32.const {POLL_EVERY})))))
(func $alloc (param $bytes i64) (result i32) (local $at i64) (local $end i64)
  (if (i64.gt_u (local.get $bytes) (i64.const {LIMIT_BYTES})) (then {stop(MEMORY)}))
  (local.set $at (i64.extend_i32_u (global.get $top)))
  (local.set $end (i64.add (local.get $at) (i64.and (i64.add (local.get $bytes) (i64.const 15)) (i64.const -16))))
  (if (i64.gt_u (local.get $end) (i64.const 4294901760)) (then {stop(MEMORY)}))
  (if (i64.gt_u (local.get $end) (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16)))
    (then
      (if (i32.lt_s (memory.grow
          (i32.add (i32.const 16) (i32.wrap_i64 (i64.shr_u (i64.sub (local.get $end)
            (i64.shl (i64.extend_i32_u (memory.size)) (i64.const 16))) (i64.const 16)))))
          (i32.const 0))
        (then {stop(MEMORY)}))))
  (global.set $top (i32.wrap_i64 (local.get $end)))
  (i32.wrap_i64 (local.get $at)))
(func $new (param $n i64) (param $size i32) (result i32) (local $p i32)
  (if (i64.lt_s (local.get $n) (i64.const 0)) (then (local.set $n (i64.const 0))))
  (if (i64.gt_u (local.get $n) (i64.const {LIMIT_BYTES})) (then {stop(MEMORY)}))
  (local.set $p (call $alloc (i64.add (i64.const 16)
    (i64.mul (local.get $n) (i64.extend_i32_u (local.get $size))))))
  (i32.store (local.get $p) (i32.add (local.get $p) (i32.const 16)))
  (i32.store offset=4 (local.get $p) (i32.wrap_i64 (local.get $n)))
  (i32.store offset=8 (local.get $p) (i32.wrap_i64 (local.get $n)))
  (local.get $p))
(func $grow (param $p i32) (param $size i32) (local $room i32) (local $data i32)
  (local.set $room (i32.add (i32.shl (i32.load offset=8 (local.get $p)) (i32.const 1)) (i32.const 4)))
  (local.set $data (call $alloc (i64.mul (i64.extend_i32_u (local.get $room)) (i64.extend_i32_u (local.get $size)))))
  (memory.copy (local.get $data) (i32.load (local.get $p))
    (i32.mul (i32.load offset=4 (local.get $p)) (local.get $size)))
  (i32.store (local.get $p) (local.get $data))
  (i32.store offset=8 (local.get $p) (local.get $room)))
(func $clip (param $i i64) (param $n i64) (result i64)
  (if (i64.lt_s (local.get $i) (i64.const 0)) (then (local.set $i (i64.add (local.get $i) (local.get $n)))))
  (if (i64.lt_s (local.get $i) (i64.const 0)) (then (return (i64.const 0))))
  (if (i64.gt_s (local.get $i) (local.get $n)) (then (return (local.get $n))))
  (local.get $i))
(func $slice (param $p i32) (param $from i64) (param $to i64) (param $size i32) (result i32)
  (local $n i64) (local $q i32)
  (local.set $n (i64.load32_u offset=4 (local.get $p)))
  (local.set $from (call $clip (local.get $from) (local.get $n)))
  (local.set $to (call $clip (local.get $to) (local.get $n)))
  (local.set $q (call $new (i64.sub (local.get $to) (local.get $from)) (local.get $size)))
  (memory.copy (i32.load (local.get $q))
    (i32.add (i32.load (local.get $p)) (i32.mul (i32.wrap_i64 (local.get $from)) (local.get $size)))
    (i32.mul (i32.load offset=4 (local.get $q)) (local.get $size)))
  (local.get $q))
(func $concat (param $p i32) (param $q i32) (param $size i32) (result i32) (local $r i32)
  (local.set $r (call $new (i64.add (i64.load32_u offset=4 (local.get $p)) (i64.load32_u offset=4 (local.get $q)))
    (local.get $size)))
  (memory.copy (i32.load (local.get $r)) (i32.load (local.get $p))
    (i32.mul (i32.load offset=4 (local.get $p)) (local.get $size)))
  (memory.copy
    (i32.add (i32.load (local.get $r)) (i32.mul (i32.load offset=4 (local.get $p)) (local.get $size)))
    (i32.load (local.get $q)) (i32.mul (i32.load offset=4 (local.get $q)) (local.get $size)))
  (local.get $r))
(func $repeat (param $p i32) (param $n i64) (param $size i32) (result i32)
  (local $r i32) (local $have i32) (local $all i32) (local $step i32)
  (if (i64.lt_s (local.get $n) (i64.const 0)) (then (local.set $n (i64.const 0))))
  (if (i64.gt_u (local.get $n) (i64.const {LIMIT_BYTES})) (then {stop(MEMORY)}))
  (local.set $r (call $new (i64.mul (local.get $n) (i64.load32_u offset=4 (local.get $p))) (local.get $size)))
  (local.set $all (i32.mul (i32.load offset=4 (local.get $r)) (local.get $size)))
  (local.set $have (i32.mul (i32.load offset=4 (local.get $p)) (local.get $size)))
  (if (i32.eqz (local.get $all)) (then (return (local.get $r))))
  (memory.copy (i32.load (local.get $r)) (i32.load (local.get $p)) (local.get $have))
  (block $done (loop $more
    (br_if $done (i32.ge_u (local.get $have) (local.get $all)))
    (local.set $step (i32.sub (local.get $all) (local.get $have)))
    (if (i32.gt_u (local.get $step) (local.get $have)) (then (local.set $step (local.get $have))))
    (memory.copy (i32.add (i32.load (local.get $r)) (local.get $have)) (i32.load (local.get $r)) (local.get $step))
    (local.set $have (i32.add (local.get $have) (local.get $step)))
    (br $more)))
  (local.get $r))
(func $mul (param $x i64) (param $y i64) (result i64) (local $low i64) (local $high i64)
  (i64.mul_wide_s (local.get $x) (local.get $y)) (local.set $high) (local.set $low)
  (if (i64.ne (local.get $high) (i64.shr_s (local.get $low) (i64.const 63))) (then {stop(OVERFLOW)}))
  (local.get $low))
(func $ipow (param $x i64) (param $n i64) (result i64) (local $r i64)
  (if (i64.lt_s (local.get $n) (i64.const 0)) (then {stop(KIND)}))
  (local.set $r (i64.const 1))
  (block $done (loop $more
    (br_if $done (i64.eqz (local.get $n)))
    (if (i64.ne (i64.and (local.get $n) (i64.const 1)) (i64.const 0))
      (then (local.set $r (call $mul (local.get $r) (local.get $x)))))
    (local.set $n (i64.shr_u (local.get $n) (i64.const 1)))
    (br_if $done (i64.eqz (local.get $n)))
    (local.set $x (call $mul (local.get $x) (local.get $x)))
    (br $more)))
  (local.get $r))
"""
