// The files of this folder are one function's body, in the order that guest.py names: the driver of
// an isolate. It keeps hold of the built-ins it needs, because a task may replace them. All that
// crosses is numbers and bytes in one buffer, the scratch: the guest process touches no object of
// a task, because traps in getters, proxies and dates hang or crash the bridge.
"use strict";
const { apply, defineProperty, deleteProperty, getOwnPropertyDescriptor, ownKeys } = Reflect;
const { create, getPrototypeOf } = Object;
const { stringify, parse } = JSON;
const { isArray } = Array;
const { min } = Math;
const StringOf = String, NumberOf = Number, ErrorOf = Error, TypeErrorOf = TypeError, SyntaxErrorOf = SyntaxError;
const PromiseOf = Promise, BigIntOf = BigInt, BufferOf = ArrayBuffer, Bytes = Uint8Array, Units = Uint16Array;
const MemoryOf = WebAssembly.Memory;
const indirectEval = eval;
const { fromCharCode } = String;
const { charCodeAt, slice } = String.prototype;
const promiseThen = Promise.prototype.then;
const getter = (object, name) => getOwnPropertyDescriptor(object, name).get;
const typedArray = getPrototypeOf(Uint8Array.prototype);
const subarray = typedArray.subarray;
const copyFrom = typedArray.set;

// 8 numbers of header, then bytes; filled by whoever calls, for the other to read.
const HEADER_BYTES = 64;
const header = new Float64Array(scratch, 0, 8);
const units = new Units(scratch, HEADER_BYTES);
const bytes = new Bytes(scratch, HEADER_BYTES);
const unitCount = units.length;

/** Ask the guest process; it has answered when this returns. The numbers are bridge.py's `Call`. */
const ask = (call, a, b) => {
  header[0] = call;
  header[1] = a;
  header[2] = b;
  host();
  return header[0];
};
const CALL = {
  __proto__: null,
  write: 1, part: 2, settled: 3, alarm: 4, random: 5, clock: 6, digest: 7, open: 8, send: 9, pull: 10, close: 11,
};

/** Put part of a text into the scratch, as UTF-16. */
const putText = (text, at, length) => {
  for (let i = 0; i < length; i++) units[i] = apply(charCodeAt, text, [at + i]);
};

/** Make a text of one-byte or two-byte code units; in pieces, because arguments lie on the stack. */
const textOf = (codes, length) => {
  let text = "";
  for (let at = 0; at < length; at += 8192) {
    text += apply(fromCharCode, null, apply(subarray, codes, [at, min(length, at + 8192)]));
  }
  return text;
};

/** Load a part: it is fetched, compiled and run at its first use. */
const parts = create(null);
const part = (name) => {
  if (parts[name] === undefined) {
    parts[name] = create(null); // a part that looks for its own globals finds none
    putText(name, 0, name.length);
    const length = ask(CALL.part, name.length, 0);
    parts[name] = indirectEval(textOf(bytes, length))(internals);
  }
  return parts[name];
};

/** Define globals that load their part when they are first touched. */
const define = (object, name, value) =>
  defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });
const lazily = (name, names) => {
  for (let i = 0; i < names.length; i++) {
    const key = names[i];
    defineProperty(globalThis, key, {
      configurable: true,
      enumerable: false,
      get() {
        const value = part(name)[key];
        define(globalThis, key, value);
        return value;
      },
      set(value) {
        define(globalThis, key, value);
      },
    });
  }
};
