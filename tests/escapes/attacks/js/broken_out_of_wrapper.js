// Code that closes a bracket it did not open is no code.
// ENDS: error GuestSyntaxError
}); globalThis.escaped = true; (() => {
