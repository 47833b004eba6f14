// No trap of a proxy is ever sprung from outside the isolate.
// ENDS: timeout
// WITH: timeout_s=0.5
new Proxy({}, { ownKeys() { for (;;); } });
