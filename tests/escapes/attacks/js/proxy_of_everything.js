// A proxy that answers all questions with an exception ends with one.
// ENDS: error GuestException
new Proxy({}, new Proxy({}, { get(_, trap) { throw new Error(String(trap)); } }));
