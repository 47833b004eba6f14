// Code that runs while the value is written runs in the jail.
// ENDS: timeout
// WITH: timeout_s=0.5
({ toJSON() { for (;;); } });
