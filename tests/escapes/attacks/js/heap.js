// The heap is bounded.
// ENDS: limit memory_bytes
// WITH: memory_bytes=64MiB
const kept = [];
for (;;) kept.push(new Array(1000).fill(1.1));
