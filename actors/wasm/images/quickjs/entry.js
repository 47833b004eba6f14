// After the V8 driver's own files: the host's functions, in the order
// of `ENTRIES` in startup.py.
const internals = {
  __proto__: null,
  ask, CALL, part, now, define, fail, typedArray, copyFrom, timerId,
};
/** Load the parts. They come after all else: what every task touches lies close together then. */
const install = (sources) => {
  const load = (name, names) => {
    parts[name] = sources[name](internals);
    for (let i = 0; i < names.length; i++) define(globalThis, names[i], parts[name][names[i]]);
  };
  load("inspect", []);
  load("text", ["TextEncoder", "TextDecoder", "atob", "btoa", "DOMException"]);
  load("events", ["Event", "CustomEvent", "EventTarget", "AbortController", "AbortSignal"]);
  load("data", ["structuredClone"]);
  load("url", ["URL", "URLSearchParams"]);
  deleteProperty(globalThis, "__core-js_shared__");
};
define(globalThis, "self", globalThis);
// What V8 does not have yet, of names too common to look for in programs.
deleteProperty(Iterator.prototype, "includes");
deleteProperty(Iterator.prototype, "join");
deleteProperty(ArrayBuffer.prototype, "immutable");
deleteProperty(globalThis, "performance"); // its clock began when the image was made

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
  outcome = null; // of an attempt before
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
  outcome = null;
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
/**
 * The report as JSON text, or behind one letter a value alone: T text as it is, V and U JSON. While there is
 * none: in how many ms to call `tick`, or "" when nothing will ever come.
 */
const tell = () => {
  if (outcome === null && held !== null) {
    const { value } = held;
    if (typeof value === "bigint" || (typeof value === "object" && value !== null)) token = newToken();
    settle(value);
  }
  const waits = outcome === null ? alarmAt !== 0 : restful && heldTimers > 0;
  if (waits) return StringOf(max(0, alarmAt - now()));
  if (outcome === null) return "";
  return outcome[0] === "{" ? `{"token":"${token}","outcome":${outcome}}` : outcome;
};
/** The next buffer of the value. */
let leaves = 0;
const leaf = () => outbound[leaves++].buffer;
define2(globalThis, "inputs", null);
stepping = true; // the host looks for the report itself
return [begin, addBuffer, finishScript, finishModule, fail, tell, tick, leaf, install];
