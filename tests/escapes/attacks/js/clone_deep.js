// A clone nested too deep is an exception.
// ENDS: error GuestException
let value = {};
for (let i = 0; i < 1e6; i++) value = { value };
structuredClone(value);
