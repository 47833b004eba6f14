// Nothing of an earlier execution is there.
// ENDS: denied
const left = globalThis.leftBehind;
globalThis.leftBehind = 1;
Object.prototype.leftBehind = 1;
left === undefined ? "DENIED" : "ESCAPED";
