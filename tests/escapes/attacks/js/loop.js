// The deadline holds for code that never yields.
// ENDS: timeout
// WITH: timeout_s=0.5
for (;;);
