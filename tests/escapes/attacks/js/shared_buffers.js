// So do shared and growable ones.
// ENDS: limit memory_bytes
// WITH: memory_bytes=64MiB
const kept = [];
for (;;) {
  const buffer = new SharedArrayBuffer(1 << 20, { maxByteLength: 16 << 20 });
  buffer.grow(16 << 20);
  new Uint8Array(buffer).fill(1);
  kept.push(buffer);
}
