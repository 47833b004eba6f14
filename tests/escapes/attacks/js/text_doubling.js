// Texts are heap too.
// ENDS: limit memory_bytes
// WITH: memory_bytes=64MiB
let text = "x";
const kept = [];
for (;;) { text += text; if (text.length > 1 << 24) { kept.push(text.slice(1) + kept.length, [...text]); } }
