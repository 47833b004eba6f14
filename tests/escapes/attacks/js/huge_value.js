// Nor one larger than the memory it would take to say it.
// ENDS: error UnserializableValue
// WITH: memory_bytes=256MiB
"x".repeat(5e8);
