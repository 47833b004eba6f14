// And for code that waits for nothing.
// ENDS: timeout
// WITH: timeout_s=0.5
new Promise(() => {});
