// So does the parser's.
// ENDS: error GuestException
eval("(".repeat(1 << 20));
