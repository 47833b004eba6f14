// Before the V8 driver's own files (timers, console, values, tasks), which follow as they are: what
// they expect to be there, by this engine's means. The image is made when all of it has run, so
// everything is loaded ahead.
"use strict";
const { apply, defineProperty, deleteProperty, getOwnPropertyDescriptor, ownKeys } = Reflect;
const { create, getPrototypeOf } = Object;
const { stringify, parse } = JSON;
const { isArray } = Array;
const { max, min, random } = Math;
const dateNow = Date.now;
const StringOf = String, NumberOf = Number, ErrorOf = Error, TypeErrorOf = TypeError, SyntaxErrorOf = SyntaxError;
const PromiseOf = Promise, BigIntOf = BigInt, BufferOf = ArrayBuffer, Bytes = Uint8Array;
const indirectEval = eval;
const charCodeAt = String.prototype.charCodeAt;
const promiseThen = Promise.prototype.then;
const getter = (object, name) => getOwnPropertyDescriptor(object, name).get;
const typedArray = getPrototypeOf(Uint8Array.prototype);
const subarray = typedArray.subarray;
const copyFrom = typedArray.set;
const MemoryOf = null; // buffers of the inputs are copied

// The key that stands in JSON for what JSON cannot say: the host's for the inputs, then one of ours.
let token = "";
const newToken = () => "rv" + StringOf((random() * 0x3fffffff) | 0) + "." + StringOf((random() * 0x3fffffff) | 0);

// The V8 driver asks its process by numbers; here almost all is answered on this side.
const CALL = {
  __proto__: null,
  write: 1, part: 2, settled: 3, alarm: 4, random: 5, clock: 6, digest: 7, open: 8, send: 9, pull: 10, close: 11,
};
let pendingText = "";
const unitCount = Infinity; // a text is written in one piece
const putText = (text) => {
  pendingText = text;
};
let began = 0; // when the task began, in ms; 0 while the image is made
let alarmAt = 0, heldTimers = 0;
const ask = (call, a, b) => {
  switch (call) {
    case CALL.write:
      host((a === 2 ? "2" : "1") + pendingText);
      pendingText = "";
      return 0;
    case CALL.clock:
      return dateNow() - began;
    case CALL.alarm:
      alarmAt = a;
      heldTimers = b;
      return 0;
  }
  return 0;
};
const parts = create(null);
const part = (name) => parts[name] ?? {};
const define = (object, name, value) =>
  defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });
