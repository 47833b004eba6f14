// And is shown within the deadline.
// ENDS: timeout
// WITH: timeout_s=0.5
throw { toString() { for (;;); } };
