"""Random wasm modules: valid ones that do anything to memory and to WASI, and mutations of them.

Source of the encoding: https://webassembly.github.io/spec/core/binary/
"""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from runvisor.actors.wasm.wasi import FUNCTIONS, MODULE

I32, I64, F32, F64 = 0x7F, 0x7E, 0x7D, 0x7C
KINDS: Final = (I32, I64, F32, F64)
_HOSTILE: Final = (0, 1, 2, 3, 4, 8, 16, 64, 255, 4096, 65528, 65532, 65535, 65536, 1 << 20, 1 << 30, 2**31 - 1, 2**31)
_BINARY: Final = {I32: (0x6A, 0x78), I64: (0x7C, 0x8A), F32: (0x92, 0x98), F64: (0xA0, 0xA6)}
_LOADS: Final = {I32: 0x28, I64: 0x29, F32: 0x2A, F64: 0x2B}
_STORES: Final = {I32: 0x36, I64: 0x37, F32: 0x38, F64: 0x39}
_LETTERS: Final = {"i": I32, "l": I64}


def unsigned(number: int) -> bytes:
    encoded = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        encoded.append(low | (0x80 if number else 0))
        if not number:
            return bytes(encoded)


def signed(number: int) -> bytes:
    encoded = bytearray()
    while True:
        number, low = number >> 7, number & 0x7F
        is_last = number == (-1 if low & 0x40 else 0)
        encoded.append(low | (0 if is_last else 0x80))
        if is_last:
            return bytes(encoded)


def vector(items: list[bytes]) -> bytes:
    return unsigned(len(items)) + b"".join(items)


def section(number: int, body: bytes) -> bytes:
    return bytes([number]) + unsigned(len(body)) + body


class Generator:
    """Makes modules.

    Args:
        random: Where chance comes from; the same seed makes the same modules.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._imports: list[str] = []
        self._room = 0

    def module(self) -> bytes:
        """Return a valid module that exports ``main``."""
        random = self._random
        self._imports = random.sample(sorted(FUNCTIONS), random.randint(0, 6))
        types = [_signature([_LETTERS[c] for c in FUNCTIONS[name]], name != "proc_exit") for name in self._imports]
        types += [_signature([I32, I64], True), _signature([], True)]
        helper, main = len(self._imports), len(self._imports) + 1
        texts = [(MODULE.encode(), name.encode()) for name in self._imports]
        imports = [unsigned(len(m)) + m + unsigned(len(n)) + n + b"\0" + unsigned(i) for i, (m, n) in enumerate(texts)]
        bodies = [self._body(parameters=2), self._body(parameters=0)]
        data = random.randbytes(random.randint(0, 64))
        return b"".join(
            (
                b"\0asm\1\0\0\0",
                section(1, vector(types)),
                section(2, vector(imports)),
                section(3, vector([unsigned(helper), unsigned(main)])),
                section(4, vector([b"\x70\0" + unsigned(4)])),
                section(5, vector([b"\1\1" + unsigned(random.choice((1, 2, 64, 65536)))])),
                section(6, vector([bytes([kind, 1]) + self._constant(kind) + b"\x0b" for kind in KINDS])),
                section(7, vector([b"\4main\0" + unsigned(main), b"\6memory\2\0"])),
                section(9, vector([b"\0\x41\0\x0b" + vector([unsigned(helper), unsigned(main)])])),
                section(10, vector(bodies)),
                section(11, vector([b"\0" + self._near(256) + b"\x0b" + unsigned(len(data)) + data])),
            )
        )

    def mutated(self, module: bytes) -> bytes:
        """Return a module with some bytes changed, cut out, doubled or moved."""
        random, changed = self._random, bytearray(module)
        for _ in range(random.choice((1, 1, 1, 2, 4, 16))):
            at = random.randrange(8 if random.random() < 0.98 else 0, len(changed))
            kind = random.randrange(6)
            if kind <= 2:
                changed[at] = random.randrange(256) if kind else changed[at] ^ (1 << random.randrange(8))
            elif kind == 3:
                del changed[at : at + random.randint(1, 8)]
            elif kind == 4:
                changed[at:at] = random.choice((changed[at : at + random.randint(1, 32)], random.randbytes(4)))
            else:
                changed[at] = random.choice((0x7F, 0x80, 0xFF, 0x0B, 0x00))
            if len(changed) < 10:
                return bytes(changed)
        return bytes(changed)

    def _body(self, parameters: int) -> bytes:
        self._room = 120
        self._first_local = parameters
        code = b"".join(self._statement(3) for _ in range(self._random.randint(1, 8))) + self._value(I32, 3)
        locals_ = vector([unsigned(1) + bytes([kind]) for kind in KINDS])
        body = locals_ + code + b"\x0b"
        return unsigned(len(body)) + body

    def _local(self, kind: int) -> bytes:
        return unsigned(self._first_local + KINDS.index(kind))

    def _constant(self, kind: int) -> bytes:
        random = self._random
        if kind in (I32, I64):
            number = random.choice((*_HOSTILE, -1, -8, random.randint(-(2**31), 2**31 - 1)))
            if kind == I32:
                return b"\x41" + signed((number + 2**31) % 2**32 - 2**31)
            return b"\x42" + signed(random.choice((number, 2**63 - 1, -(2**63), number << 24)))
        real = random.choice((0.0, -0.0, 1.5, float("nan"), float("inf"), 1e30))
        return b"\x43" + struct.pack("<f", real) if kind == F32 else b"\x44" + struct.pack("<d", real)

    def _near(self, bound: int) -> bytes:
        """Return code for a small constant."""
        return b"\x41" + signed(self._random.randrange(bound))

    def _address(self, depth: int) -> bytes:
        """Return code for an address, mostly inside the first page."""
        inside = b"\x41" + signed(0xFFF8) + b"\x71" if self._random.random() < 0.97 else b""
        return self._value(I32, depth) + inside

    def _value(self, kind: int, depth: int) -> bytes:
        """Return code that leaves one value."""
        random = self._random
        self._room -= 1
        if depth <= 0 or self._room <= 0:
            return random.choice((self._constant(kind), b"\x20" + self._local(kind)))
        choice = random.randrange(12)
        if choice == 0:
            return self._constant(kind)
        if choice == 1:
            return b"\x23" + unsigned(KINDS.index(kind))
        if choice == 2:
            return self._address(depth - 1) + bytes([_LOADS[kind]]) + b"\0" + unsigned(0)
        if choice == 3:
            return self._value(I32, depth - 1) + self._if(kind, depth)
        if choice == 4:
            return self._value(kind, depth - 1) + self._value(kind, depth - 1) + self._value(I32, 0) + b"\x1b"
        if kind == I32 and choice <= 8:
            return self._whole(depth)
        if kind == I64 and choice <= 6:
            return self._value(I32, depth - 1) + random.choice((b"\xac", b"\xad"))
        if kind == F64 and choice <= 6:
            return self._value(I64, depth - 1) + random.choice((b"\xb9", b"\xbf"))
        if kind == F32 and choice <= 6:
            return self._value(F64, depth - 1) + b"\xb6"
        low, high = _BINARY[kind]
        return self._value(kind, depth - 1) + self._value(kind, depth - 1) + bytes([random.randint(low, high)])

    def _if(self, kind: int, depth: int) -> bytes:
        first, second = self._value(kind, depth - 1), self._value(kind, depth - 1)
        return b"\x04" + bytes([kind]) + first + b"\x05" + second + b"\x0b"

    def _whole(self, depth: int) -> bytes:
        random = self._random
        kind = random.randrange(8)
        if kind == 0:
            return b"\x3f\0"
        if kind == 1:
            return self._value(I32, depth - 1) + b"\x40\0"
        if kind == 2:
            return self._value(I64, depth - 1) + b"\xa7"
        if kind == 3:
            return self._value(F64, depth - 1) + random.choice((b"\xfc\2", b"\xfc\3"))
        if kind == 4 and random.random() < 0.2:
            helper = unsigned(len(self._imports))
            return self._value(I32, 0) + self._value(I64, 0) + b"\x10" + helper
        if kind == 5 and random.random() < 0.3:
            return self._value(I32, 0) + b"\x11" + unsigned(len(self._imports) + 1) + b"\0"
        callable_ = [i for i, name in enumerate(self._imports) if name != "proc_exit"]
        if callable_:
            index = random.choice(callable_)
            arguments = b"".join(self._argument(_LETTERS[c]) for c in FUNCTIONS[self._imports[index]])
            return arguments + b"\x10" + unsigned(index)
        return self._value(I32, depth - 1) + b"\x45"

    def _argument(self, kind: int) -> bytes:
        """Return code for what a host function is called with: anything, or what could be a pointer or a length."""
        return self._near(64) if kind == I32 and self._random.random() < 0.5 else self._value(kind, 1)

    def _statement(self, depth: int) -> bytes:
        random = self._random
        kind = random.choice(KINDS)
        choice = random.randrange(10)
        if choice <= 2:
            return self._address(1) + self._value(kind, depth) + bytes([_STORES[kind]]) + b"\0\0"
        if choice == 3:
            return self._value(kind, depth) + b"\x24" + unsigned(KINDS.index(kind))
        if choice == 4:
            inner = self._statement(depth - 1) if depth > 1 else b""
            return b"\x03\x40" + inner + self._value(I32, 1) + b"\x0d\0\x0b"
        if choice == 5:
            return (
                self._value(I32, 0)
                + self._value(I32, 0)
                + self._value(I32, 0)
                + random.choice((b"\xfc\x0b\0", b"\xfc\x0a\0\0"))
            )
        if choice == 6 and "proc_exit" in self._imports and random.random() < 0.3:
            return self._value(I32, 1) + b"\x10" + unsigned(self._imports.index("proc_exit"))
        if choice == 7 and random.random() < 0.1:
            return b"\x00"
        if choice == 8:
            return self._value(I32, depth) + b"\x1a"
        return self._value(kind, depth) + b"\x21" + self._local(kind)


def _signature(parameters: list[int], returns: bool) -> bytes:
    return b"\x60" + vector([bytes([kind]) for kind in parameters]) + vector([bytes([I32])] if returns else [])
