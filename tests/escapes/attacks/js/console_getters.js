// What is printed is looked at within the deadline.
// ENDS: timeout
// WITH: timeout_s=0.5
console.log({ get a() { for (;;); }, toString() { for (;;); }, [Symbol.toStringTag]: { toString() { for (;;); } } },
  new Proxy({}, { get() { for (;;); }, ownKeys() { for (;;); } }));
