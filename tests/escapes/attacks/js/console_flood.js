// Output is cut at its cap.
// ENDS: limit output_bytes
// WITH: output_bytes=1MiB
for (;;) console.log("x".repeat(1000));
