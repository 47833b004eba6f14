// A value nested too deep cannot leave.
// ENDS: error UnserializableValue
let value = [];
for (let i = 0; i < 100000; i++) value = [value];
value;
