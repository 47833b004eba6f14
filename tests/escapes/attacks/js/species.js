// Subclasses with species and constructors of their own are read as plain values.
// ENDS: ok
class Odd extends Array { static get [Symbol.species]() { throw new Error("x"); } }
class OddBytes extends Uint8Array { static get [Symbol.species]() { throw new Error("x"); } get buffer() { throw new Error("x"); } get byteLength() { return 1e9; } }
[Odd.of(1, 2), new OddBytes(4)];
