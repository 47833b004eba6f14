// Microtasks without end let no timer and no report through; they are killed.
// ENDS: timeout
// WITH: timeout_s=0.5 memory_bytes=1024MiB
const again = () => { Promise.resolve().then(again); };
again();
