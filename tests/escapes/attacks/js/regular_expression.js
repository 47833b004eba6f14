// Matching cannot be interrupted from inside, but killed from outside.
// ENDS: timeout
// WITH: timeout_s=0.5
/(a+)+$/.test("a".repeat(60) + "b");
