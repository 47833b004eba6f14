// An iterator replaced in a prototype gives the task no hold on the driver.
// ENDS: ok
const grabbed = [];
const original = Array.prototype[Symbol.iterator];
Array.prototype[Symbol.iterator] = function () { grabbed.push(this); return original.call(this); };
String.prototype[Symbol.iterator] = Array.prototype[Symbol.iterator];
({ a: [1, 2], b: new Uint8Array(4), c: new Map([["x", 1]]), d: 10n });
