// Buffers lie outside the heap, and count all the same.
// ENDS: limit memory_bytes
// WITH: memory_bytes=64MiB
const kept = [];
for (;;) { const buffer = new Uint8Array(8 << 20); buffer.fill(1); kept.push(buffer); }
