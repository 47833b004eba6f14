// A task that replaces every built-in it can find forges nothing and loses nothing.
// ENDS: denied
const kept = [Object.prototype, Array.prototype, Promise.prototype, String.prototype, Function.prototype, RegExp.prototype, Map.prototype];
const { ownKeys } = Reflect;
for (let i = 0; i < kept.length; i++) {
  const names = ownKeys(kept[i]);
  for (let j = 0; j < names.length; j++) {
    if (names[j] === "constructor" || names[j] === "__proto__") continue;
    try { kept[i][names[j]] = function () { return "ESCAPED"; }; } catch {}
  }
}
JSON.stringify = () => '"ESCAPED"';
JSON.parse = () => "ESCAPED";
Reflect.apply = Reflect.ownKeys = () => "ESCAPED";
Promise.resolve = () => "ESCAPED";
globalThis.Promise = globalThis.Array = globalThis.Object = globalThis.JSON = undefined;
"DENIED";
