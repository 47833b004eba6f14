// Nor one of so many parts that the host would have to hold them all.
// ENDS: error UnserializableValue
// WITH: memory_bytes=1024MiB timeout_s=10
new Array(2e6).fill(0).map(() => []);
