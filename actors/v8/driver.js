// Runs before the task, in its isolate. Keeps hold of the built-ins it needs, because
// the task may replace them; hands results out as JSON text only, never as objects.
(() => {
  "use strict";
  const { stringify, parse } = JSON;
  const { apply } = Reflect;
  const PromiseThen = Promise.prototype.then;
  const StringOf = String;
  const indirectEval = eval;
  const slice = String.prototype.slice;
  const isThenable = (value) =>
    value !== null && (typeof value === "object" || typeof value === "function") && typeof value.then === "function";

  let room = 0;
  const streams = { out: "", err: "" };
  const show = (value) => {
    if (typeof value === "string") return value;
    if (typeof value === "function") return `[Function ${value.name || "(anonymous)"}]`;
    if (value instanceof Error) return value.stack || StringOf(value);
    if (typeof value === "object" && value !== null) {
      try {
        return stringify(value) ?? StringOf(value);
      } catch {
        return "[object]";
      }
    }
    return typeof value === "bigint" ? `${StringOf(value)}n` : StringOf(value);
  };
  const print = (stream) => (...items) => {
    let line = "";
    for (let i = 0; i < items.length; i++) line += (i ? " " : "") + show(items[i]);
    const text = streams[stream] + line + "\n";
    streams[stream] = text.length > room ? apply(slice, text, [0, room]) : text;
    if (text.length > room) throw new RangeError("the output limit is reached");
  };
  const out = print("out");
  const err = print("err");
  globalThis.console = { log: out, info: out, debug: out, table: out, dir: out, warn: err, error: err, trace: err };

  let outcome = null; // JSON text, once the task is over
  const settle = (value) => {
    if (typeof value === "function" || typeof value === "symbol" || typeof value === "bigint") {
      outcome = stringify({ kind: "unserializable", what: `a value of type ${typeof value}` });
      return;
    }
    try {
      const text = stringify(value);
      outcome = `{"kind":"value","json":${text === undefined ? "null" : text}}`;
    } catch (error) {
      outcome = stringify({ kind: "unserializable", what: describe(error).what });
    }
  };
  const describe = (error) => {
    try {
      if (error instanceof Error) {
        return { what: `${error.name}: ${error.message}`, stack: StringOf(error.stack), syntax: error instanceof SyntaxError };
      }
      return { what: `threw ${show(error)}`, stack: "", syntax: false };
    } catch {
      return { what: "threw a value that cannot be shown", stack: "", syntax: false };
    }
  };
  const fail = (error) => {
    outcome = stringify({ kind: "error", ...describe(error) });
  };
  const finish = (value) => {
    try {
      if (isThenable(value)) apply(PromiseThen, Promise.resolve(value), [finish, fail]);
      else settle(value);
    } catch (error) {
      fail(error);
    }
  };

  const driver = (code, inputs, limit, callsMain) => {
    room = limit + 1; // one more than the limit, so that the host sees that it was passed
    streams.out = streams.err = "";
    outcome = null;
    globalThis.inputs = parse(inputs);
    try {
      const value = indirectEval(code);
      const main = globalThis.main;
      finish(typeof main === "function" && !callsMain ? main(globalThis.inputs) : value);
    } catch (error) {
      fail(error);
    }
  };
  // The report, or "" while a promise is pending. Asked for in an evaluation of its own,
  // which V8 begins only when the microtasks of the task have run out.
  const report = () =>
    outcome === null ? "" : `{"out":${stringify(streams.out)},"err":${stringify(streams.err)},"outcome":${outcome}}`;
  Object.defineProperty(globalThis, "__runvisor", { value: Object.freeze({ driver, report }) });
})();
