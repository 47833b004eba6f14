// Setters on array indexes and on names of the driver's own records see nothing.
// ENDS: denied
const names = ["0", "1", "2", "kind", "json", "outcome", "value", "get", "set", "writable", "configurable", "what", "stack"];
const prototypes = [Array.prototype, Object.prototype];
const trap = {
  __proto__: null,
  configurable: true,
  get() { return undefined; },
  set(value) { if (typeof value === "function" || typeof value === "object") throw new Error("ESCAPED"); },
};
for (let i = 0; i < names.length; i++) for (let j = 0; j < 2; j++) Object.defineProperty(prototypes[j], names[i], trap);
"DENIED";
