// Catching every error gains nothing.
// ENDS: limit memory_bytes
// WITH: memory_bytes=64MiB
const kept = [];
for (;;) try { for (;;) kept.push({ [kept.length]: "x".repeat(100) + kept.length }); } catch {}
