// A value that changes while it is written cannot make the writer read too far.
// ENDS: error UnserializableValue
const buffer = new ArrayBuffer(1 << 20, { maxByteLength: 1 << 20 });
[new Uint8Array(buffer), { toJSON() { buffer.resize(0); return 1; } }, new Uint8Array(buffer, 1 << 19), { get x() { throw new Error("end"); } }];
