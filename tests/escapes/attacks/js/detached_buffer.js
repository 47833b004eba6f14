// A buffer without memory is nothing, not a wild pointer.
// ENDS: error UnserializableValue
const buffer = new ArrayBuffer(1024);
const view = new Uint8Array(buffer);
structuredClone(buffer, { transfer: [buffer] });
const shrunk = new ArrayBuffer(1024, { maxByteLength: 4096 });
const long = new Uint8Array(shrunk);
shrunk.resize(0);
[view, buffer, long, shrunk];
