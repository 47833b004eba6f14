// After the V8 driver's own files: loads the parts, and gives the host its functions, in the order
// of `Entry` in actors/wasm/javascript/layout.py.
const internals = {
  __proto__: null,
  ask, CALL, part, now, define, fail, typedArray, copyFrom, timerId,
};
const load = (name, names, make) => {
  parts[name] = make(internals);
  for (let i = 0; i < names.length; i++) define(globalThis, names[i], parts[name][names[i]]);
};
load("inspect", [], PARTS.inspect);
load("text", ["TextEncoder", "TextDecoder", "atob", "btoa", "DOMException"], PARTS.text);
load("events", ["Event", "CustomEvent", "EventTarget", "AbortController", "AbortSignal"], PARTS.events);
load("data", ["structuredClone"], PARTS.data);
load("url", ["URL", "URLSearchParams"], PARTS.url);
define(globalThis, "self", globalThis);
for (const name of ["performance", "navigator", "gc", "bjson", "os", "std", "print", "scriptArgs", "queueMicrotask2"]) deleteProperty(globalThis, name);

/** Take the inputs: JSON text, and the key that marks what JSON cannot say, or "". */
const begin = (text, key) => {
  began = dateNow();
  token = key;
  let value = parse(text);
  if (key !== "") value = revive(value);
  inbound = [];
  define2(globalThis, "inputs", value);
};
/** Take a buffer of the inputs; comes before `begin`. */
const addBuffer = (buffer) => {
  inbound[inbound.length] = buffer;
};
/** Take the value of a script. `wrapped`: it is the promise of an object that holds the value. */
const finishScript = (value, callsMain, wrapped) => {
  turn = 1;
  try {
    if (wrapped) {
      apply(promiseThen, value, [(box) => finishScript(box.value, callsMain, false), fail]);
    } else finish(chosen(globalThis.main, value, callsMain));
  } catch (error) {
    fail(error);
  }
};
/** Take the promise of a module's namespace. */
const finishModule = (promise, callsMain) => {
  turn = 1;
  apply(promiseThen, promise, [(exported) => {
    try {
      const whole = exported.default;
      if (typeof whole === "function") return finish(chosen(whole, undefined, callsMain));
      const main = exported.main ?? whole?.main;
      finish(typeof main === "function" ? chosen(main, undefined, callsMain) : whole);
    } catch (error) {
      fail(error);
    }
  }, fail]);
};
/** The report as JSON text; "" while there is none: then in how many ms to call `tick`, or -1, as text. */
const tell = () => {
  if (outcome === null && held !== null) {
    token = newToken();
    settle(held.value);
    held = null;
  }
  if (outcome === null || (restful && heldTimers > 0)) {
    return alarmAt === 0 || (outcome === null && heldTimers === 0 && alarmAt === 0) ? (outcome === null ? "-1" : outcome) : StringOf(alarmAt - now());
  }
  return outcome;
};
const tokenNow = () => token;
const leaf = (index) => outbound[index].buffer;
const setBegan = () => {
  began = dateNow();
};
define2(globalThis, "inputs", null);
stepping = true; // the host looks for the report itself
return [begin, addBuffer, finishScript, finishModule, fail, tell, tick, leaf, tokenNow];
