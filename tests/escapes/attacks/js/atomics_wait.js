// A thread asleep is killed like one that runs.
// ENDS: timeout
// WITH: timeout_s=0.5
Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0);
