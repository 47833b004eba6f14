// Anything can be thrown.
// ENDS: error GuestException
throw Symbol("x");
