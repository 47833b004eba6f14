// A comparator that never returns holds a built-in, not the host.
// ENDS: timeout
// WITH: timeout_s=0.5
[3, 2, 1].sort(() => { for (;;); });
