// Tasks and cells: run the code, wait for its value, report it as one JSON text.
const REPLY_CHARS = 48 << 20;
let turn = 0; // a promise of an abandoned cell settles into nothing
let outcome = null; // this turn's outcome, once there is one: JSON text, or behind one letter a value alone
const NAME = "task.js";
let held = null; // the value of this turn, once there is one; told when microtasks have run out
let stepping = false; // the guest process has called, and will ask for the report
let refused; // what could not be translated, to tell it from whatever a task throws
let edits = []; // what was changed in the code before it ran
let restful = false; // the outcome may wait for timers and requests: there is no value to hurry with

const isThenable = (value) =>
  value !== null && (typeof value === "object" || typeof value === "function") && typeof value.then === "function";
const describe = (error) => {
  try {
    if (error instanceof ErrorOf) {
      const { name, message, stack } = error;
      const what = message === "" ? StringOf(name) : `${StringOf(name)}: ${StringOf(message)}`;
      return { what, stack: StringOf(stack), syntax: error instanceof SyntaxErrorOf };
    }
    return { what: `threw ${shown(error)}`, stack: "", syntax: false };
  } catch {
    return { what: "threw a value that cannot be shown", stack: "", syntax: false };
  }
};
const shown = (value) => {
  if (typeof value === "string") return value;
  if (typeof value !== "object" || value === null) return typeof value === "symbol" ? apply(symbolText, value, []) : StringOf(value);
  // By its own words first: a thrown object speaks through toString, and one that hangs meets the deadline.
  const words = StringOf(value);
  return words === "[object Object]" ? part("inspect").inspect(value) : words;
};
const symbolText = Symbol.prototype.toString;
const refuse = (what, remedy = "") => {
  outcome = stringify({ __proto__: null, kind: "unserializable", what, remedy });
};
const settle = (value) => {
  if (timerId(value) !== value) value = undefined;
  restful = value === undefined;
  if (typeof value === "function" || typeof value === "symbol") return refuse(`a value of type ${typeof value}`);
  try {
    marks = 0;
    const isText = typeof value === "string";
    const isPlain = isText || (typeof value !== "object" && typeof value !== "bigint");
    const text = isText ? value : (isPlain ? stringify(value) : jsonOf(value)) ?? "null";
    if (text.length > REPLY_CHARS) return refuse(`a value of ${text.length} characters`, "return less, or write files");
    if (marks) outcome = `{"kind":"value","leaves":${outbound.length},"json":${text}}`;
    else outcome = (isText ? "T" : restful ? "U" : "V") + text;
  } catch (error) {
    refuse(describe(error).what);
  }
};
const fail = (error) => {
  restful = false;
  outcome = stringify({ __proto__: null, kind: "error", ...describe(error) });
  if (!stepping) ask(CALL.settled, 0, 0);
};
const finish = (value) => {
  try {
    if (!isThenable(value)) {
      held = { __proto__: null, value };
      if (!stepping) ask(CALL.settled, 0, 0);
      return;
    }
    const mine = turn;
    const then = value instanceof PromiseOf ? value : new PromiseOf((resolve) => resolve(value));
    apply(promiseThen, then, [
      (result) => {
        if (mine === turn) finish(result);
      },
      (error) => {
        if (mine === turn) fail(error);
      },
    ]);
  } catch (error) {
    fail(error);
  }
};

/** The value of main, if there is one that nobody has called yet; else the last value. */
const chosen = (main, value, callsMain) => (typeof main === "function" && !callsMain ? main(globalThis.inputs) : value);
const runScript = (code, flags) => {
  const value = indirectEval(code);
  return chosen(globalThis.main, value, flags.callsMain);
};
const runCommonJs = (code, flags) => {
  const own = { exports: {} };
  define2(globalThis, "module", own);
  define2(globalThis, "exports", own.exports);
  define2(globalThis, "require", part("program").require);
  const value = indirectEval(code);
  const exported = own.exports;
  const main = typeof exported === "function" ? exported : exported?.main ?? exported?.default ?? globalThis.main;
  return chosen(main, value, flags.callsMain);
};
/** Run a module, or a cell of a session: whatever cannot be one script as it stands. */
const runProgram = (code, flags) => {
  const { translate, meta, importing } = part("program");
  const program = translate(code, flags.session === 1, NAME);
  if (program.error) {
    refused = program;
    throw program;
  }
  edits = program.edits;
  for (let i = 0; i < program.names.length; i++) {
    if (!(program.names[i] in globalThis)) define2(globalThis, program.names[i], undefined);
  }
  const value = indirectEval(program.code);
  if (!program.wrapped) return value;
  let exportsOf = () => ({});
  const exporting = (exports) => { exportsOf = exports; };
  const ran = value(exporting, meta(NAME), importing);
  if (flags.session) return ran;
  return apply(promiseThen, ran, [(last) => {
    const exported = exportsOf();
    const whole = exported.default ?? exporting.default;
    if (typeof whole === "function") return chosen(whole, last, program.callsMain);
    const main = exported.main ?? whole?.main;
    return typeof main === "function" ? chosen(main, last, program.callsMain) : whole ?? last;
  }]);
};
const runners = [runScript, runCommonJs, runProgram, (code) => indirectEval(code)]; // bridge.py's `Kind`
const run = (code, inputs, flags) => {
  turn++;
  outcome = held = null;
  restful = false;
  edits = [];
  define2(globalThis, "inputs", inputs);
  try {
    finish(runners[flags.kind](code, flags));
  } catch (error) {
    if (error === refused) outcome = stringify({ __proto__: null, ...refused.error });
    else fail(error);
  }
  return "";
};

/** The report, or "" while there is none. Asked for in a call of its own, which begins when microtasks have run out. */
const report = () => {
  if (outcome === null && held !== null) settle(held.value);
  stepping = false;
  if (outcome === null) return "";
  if (outcome[0] !== "{") return outcome;
  return `{"restful":${restful},"edits":${stringify(edits)},"outcome":${outcome}}`;
};
