// Nor one larger than the memory it would take to say it.
// ENDS: limit memory_bytes
// WITH: memory_bytes=256MiB
"x".repeat(5e8);
