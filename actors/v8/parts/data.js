// Cloning, blobs, forms, randomness and time.
((bridge) => {
  "use strict";
  const { ask, CALL, bytes, now, define } = bridge;
  const { DOMException, TextEncoder, TextDecoder, bytesOf } = bridge.part("text");

  // Cloning: https://html.spec.whatwg.org/#structured-cloning
  const ERRORS = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const structuredClone = (value, options = {}) => {
    const seen = new Map();
    const uncloneable = (what) => new DOMException(`${what} could not be cloned`, "DataCloneError");
    for (const item of options?.transfer ?? []) {
      if (!(item instanceof ArrayBuffer) || item.detached) throw uncloneable("an object that cannot be transferred");
      seen.set(item, null);
    }
    const transferred = [...seen.keys()];
    const view = (item) => {
      const buffer = clone(item.buffer);
      return item instanceof DataView ? new DataView(buffer, item.byteOffset, item.byteLength) : new item.constructor(buffer, item.byteOffset, item.length);
    };
    const clone = (item) => {
      if (typeof item === "symbol" || typeof item === "function") throw uncloneable(typeof item === "symbol" ? String(item) : item.toString().slice(0, 100));
      if (typeof item !== "object" || item === null) return item;
      const known = seen.get(item);
      if (known) return known;
      const keep = (copy) => {
        seen.set(item, copy);
        return copy;
      };
      if (item instanceof ArrayBuffer) return keep(known === null ? item.transfer() : item.slice(0));
      if (ArrayBuffer.isView(item)) return keep(view(item));
      if (item instanceof SharedArrayBuffer) return item;
      const kind = Object.prototype.toString.call(item).slice(8, -1);
      if (item instanceof Date) return keep(new Date(item.getTime()));
      if (item instanceof RegExp) return keep(new RegExp(item.source, item.flags));
      if (item instanceof Boolean || item instanceof Number || item instanceof String || item instanceof BigInt) return keep(Object(item.valueOf()));
      if (item instanceof Map) {
        const copy = keep(new Map());
        for (const [key, entry] of [...item]) copy.set(clone(key), clone(entry));
        return copy;
      }
      if (item instanceof Set) {
        const copy = keep(new Set());
        for (const entry of [...item]) copy.add(clone(entry));
        return copy;
      }
      if (item instanceof DOMException) return keep(new DOMException(item.message, item.name));
      if (item instanceof Error) {
        const copy = keep(new (ERRORS[item.name] ?? Error)(item.message));
        define(copy, "stack", String(item.stack));
        if (Object.hasOwn(item, "cause")) define(copy, "cause", clone(item.cause));
        return copy;
      }
      if (kind === "Symbol" || item instanceof Promise || item instanceof WeakMap || item instanceof WeakSet || item instanceof WeakRef) throw uncloneable(`a ${kind}`);
      if (item instanceof Blob) return item;
      const copy = keep(Array.isArray(item) ? new Array(item.length) : {});
      for (const key of Object.keys(item)) Object.defineProperty(copy, key, { value: clone(item[key]), writable: true, configurable: true, enumerable: true });
      return copy;
    };
    const copy = clone(value);
    for (const buffer of transferred) if (seen.get(buffer) === null) buffer.transfer();
    return copy;
  };

  // Blobs and forms: https://w3c.github.io/FileAPI and https://xhr.spec.whatwg.org/#interface-formdata
  const joined = (pieces) => {
    let size = 0;
    for (const piece of pieces) size += piece.length;
    const whole = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      whole.set(piece, at);
      at += piece.length;
    }
    return whole;
  };
  const encoder = new TextEncoder();
  class Blob {
    #data;
    #type;
    constructor(pieces = [], options = {}) {
      this.#data = joined([...pieces].map((piece) =>
        piece instanceof Blob ? piece.#data : ArrayBuffer.isView(piece) || piece instanceof ArrayBuffer ? bytesOf(piece) : encoder.encode(String(piece))));
      this.#type = /[^\x20-\x7e]/.test(options?.type ?? "") ? "" : String(options?.type ?? "").toLowerCase();
    }
    get size() { return this.#data.length; }
    get type() { return this.#type; }
    async arrayBuffer() { return this.#data.slice().buffer; }
    async bytes() { return this.#data.slice(); }
    async text() { return new TextDecoder().decode(this.#data); }
    slice(start = 0, end = this.size, type = "") { return new Blob([this.#data.slice(start, end)], { type }); }
    stream() {
      const data = this.#data;
      let at = 0;
      return new ReadableStream({
        pull(controller) {
          if (at >= data.length) return controller.close();
          controller.enqueue(data.slice(at, (at += 65536)));
        },
      });
    }
    get [Symbol.toStringTag]() { return "Blob"; }
  }
  class File extends Blob {
    #name;
    #modified;
    constructor(pieces, name, options = {}) {
      super(pieces, options);
      this.#name = String(name);
      this.#modified = Number(options?.lastModified ?? Date.now());
    }
    get name() { return this.#name; }
    get lastModified() { return this.#modified; }
    get [Symbol.toStringTag]() { return "File"; }
  }
  class FormData {
    #entries = [];
    #entry(name, value, filename) {
      if (value instanceof Blob && !(value instanceof File)) value = new File([value], filename ?? "blob", { type: value.type });
      else if (value instanceof File && filename !== undefined) value = new File([value], filename, { type: value.type });
      return [String(name), value instanceof Blob ? value : String(value)];
    }
    append(name, value, filename) { this.#entries.push(this.#entry(name, value, filename)); }
    set(name, value, filename) {
      const at = this.#entries.findIndex(([key]) => key === String(name));
      this.delete(name);
      this.#entries.splice(at < 0 ? this.#entries.length : at, 0, this.#entry(name, value, filename));
    }
    delete(name) { this.#entries = this.#entries.filter(([key]) => key !== String(name)); }
    get(name) { return this.#entries.find(([key]) => key === String(name))?.[1] ?? null; }
    getAll(name) { return this.#entries.filter(([key]) => key === String(name)).map(([, value]) => value); }
    has(name) { return this.#entries.some(([key]) => key === String(name)); }
    *entries() { yield* this.#entries.map(([key, value]) => [key, value]); }
    *keys() { for (const [key] of this.#entries) yield key; }
    *values() { for (const [, value] of this.#entries) yield value; }
    forEach(callback, self) { for (const [key, value] of this.#entries) callback.call(self, value, key, this); }
    [Symbol.iterator]() { return this.entries(); }
    get [Symbol.toStringTag]() { return "FormData"; }
  }

  // Cryptography: https://w3c.github.io/webcrypto, of which only random numbers and digests
  const INTEGERS = [Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array];
  const HASHES = ["SHA-1", "SHA-256", "SHA-384", "SHA-512"];
  const random = (data) => {
    for (let at = 0; at < data.length; at += 65536) {
      const size = Math.min(65536, data.length - at);
      ask(CALL.random, size, 0);
      data.set(bytes.subarray(0, size), at);
    }
  };
  class SubtleCrypto {
    async digest(algorithm, data) {
      const name = String(typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm).toUpperCase();
      const number = HASHES.indexOf(name);
      if (number < 0) throw new DOMException(`the algorithm ${name} is not supported`, "NotSupportedError");
      const content = bytesOf(data);
      for (let at = 0; at < content.length; at += bytes.length) {
        const piece = content.subarray(at, at + bytes.length);
        bytes.set(piece);
        ask(CALL.digest, number, piece.length);
      }
      return bytes.slice(0, ask(CALL.digest, number, -1)).buffer;
    }
    get [Symbol.toStringTag]() { return "SubtleCrypto"; }
  }
  class Crypto {
    #subtle = new SubtleCrypto();
    get subtle() { return this.#subtle; }
    getRandomValues(array) {
      if (!INTEGERS.some((kind) => array instanceof kind)) throw new DOMException("only arrays of integers can be filled", "TypeMismatchError");
      if (array.byteLength > 65536) throw new DOMException("no more than 65536 bytes at once", "QuotaExceededError");
      random(bytesOf(array));
      return array;
    }
    randomUUID() {
      const data = new Uint8Array(16);
      random(data);
      data[6] = (data[6] & 0x0f) | 0x40;
      data[8] = (data[8] & 0x3f) | 0x80;
      const hex = data.toHex();
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
    }
    get [Symbol.toStringTag]() { return "Crypto"; }
  }

  // Time: https://w3c.github.io/hr-time, with the marks and measures of https://w3c.github.io/user-timing
  const started = Date.now() - now();
  const entries = [];
  const note = (name, entryType, startTime, duration, detail) => {
    const entry = { name: String(name), entryType, startTime, duration, detail };
    entries.push(entry);
    return entry;
  };
  const performance = {
    timeOrigin: started,
    now,
    mark: (name, options = {}) => note(name, "mark", options?.startTime ?? now(), 0, options?.detail ?? null),
    measure: (name, from, to) => {
      const timeOf = (mark, otherwise) => {
        if (mark === undefined) return otherwise;
        if (typeof mark === "number") return mark;
        const entry = entries.findLast((item) => item.name === mark);
        if (entry === undefined) throw new DOMException(`there is no mark '${mark}'`, "SyntaxError");
        return entry.startTime;
      };
      const [start, end] = typeof from === "object" && from !== null ? [from.start, from.end] : [from, to];
      const startTime = timeOf(start, 0);
      return note(name, "measure", startTime, timeOf(end, now()) - startTime, null);
    },
    getEntries: () => [...entries],
    getEntriesByName: (name) => entries.filter((entry) => entry.name === name),
    getEntriesByType: (type) => entries.filter((entry) => entry.entryType === type),
    clearMarks: () => void entries.splice(0),
    clearMeasures: () => void entries.splice(0),
    toJSON: () => ({ timeOrigin: started }),
  };
  return { structuredClone, Blob, File, FormData, crypto: new Crypto(), performance, joined };
})
