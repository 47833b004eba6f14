// A thrown proxy does not reach the bridge.
// ENDS: error GuestException
throw new Proxy(new Error("x"), { get() { throw 1; }, getPrototypeOf() { throw 2; } });
