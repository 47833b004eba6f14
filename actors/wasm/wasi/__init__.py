"""WASI preview 1: arguments, environment, clocks, randomness, the three streams, and files that were granted.

Our own, not Wasmtime's, for four reasons: output is capped where it is
written and a sleep ends at the deadline (Wasmtime's blocks in threads that
epochs do not reach); the guest's writes are a function call instead of a hop to
another thread (7 us against over 100); each path operation asks the grant's
globs; and a world without folders has no way to a file. Every function of
preview 1 is there. Sockets are not: their functions know none.

One module per concern: `abi` numbers and layouts, `world` what one run sees,
`descriptors` what it has open, `walk` and `guard` what every path passes
through, and the functions themselves in `basics`, `streams`, `files`, `paths`
and `polling`; `network` holds the import module ``runvisor``, which is no part of
WASI.

Source: https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md
"""

from __future__ import annotations

from runvisor.actors.wasm.wasi.abi import FUNCTIONS, MODULE
from runvisor.actors.wasm.wasi.host import Wasi
from runvisor.actors.wasm.wasi.network import WEB_FUNCTIONS, WEB_MODULE
from runvisor.actors.wasm.wasi.world import World

__all__ = ["FUNCTIONS", "MODULE", "WEB_FUNCTIONS", "WEB_MODULE", "Wasi", "World"]
