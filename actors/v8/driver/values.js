// Values in and out: JSON text, and beside it the bytes of typed arrays and buffers. What JSON
// cannot say stands in the text as an object with one secret key, which no task can know.
const leafConstructors = {
  __proto__: null,
  Int8Array, Uint8Array, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array,
  Float32Array, Float64Array, Float16Array: globalThis.Float16Array,
};
const kindOfArray = getter(typedArray, Symbol.toStringTag);
const views = [
  [typedArray, getter(typedArray, "buffer"), getter(typedArray, "byteOffset"), getter(typedArray, "byteLength")],
  [DataView.prototype, getter(DataView.prototype, "buffer"), getter(DataView.prototype, "byteOffset"), getter(DataView.prototype, "byteLength")],
];
const buffers = [
  [ArrayBuffer.prototype, getter(ArrayBuffer.prototype, "byteLength")],
  [SharedArrayBuffer.prototype, getter(SharedArrayBuffer.prototype, "byteLength")],
];
const mapPrototype = Map.prototype, mapForEach = Map.prototype.forEach;
const setPrototype = Set.prototype, setForEach = Set.prototype.forEach;
const bigIntPrototype = BigInt.prototype, bigIntText = BigInt.prototype.toString;

let inbound = []; // buffers of inputs
let marks = 0; // how often the secret key stands in a value
let outbound = []; // [kind, bytes] of what a value holds

/** Make room for a buffer of the inputs: memory of whole pages may later be mapped over. */
const reserve = (size, whole) => {
  const pages = Math.ceil(size / 65536);
  const buffer = whole ? new MemoryOf({ initial: pages, maximum: pages }).buffer : new BufferOf(size);
  inbound[inbound.length] = buffer;
  return buffer;
};

const NUMBERS = { __proto__: null, NaN, Infinity, "-Infinity": -Infinity };
const revived = (mark) => {
  if (typeof mark === "string") return mark in NUMBERS ? NUMBERS[mark] : BigIntOf(mark);
  const [index, kind, size, shape] = mark;
  const flat = new leafConstructors[kind](inbound[index], 0, size);
  return shaped(flat, shape, 0, 0, size);
};
const shaped = (flat, shape, level, at, size) => {
  if (level >= shape.length - 1) return at === 0 && size === flat.length ? flat : apply(subarray, flat, [at, at + size]);
  const rows = [];
  const step = shape[level] ? size / shape[level] : 0;
  for (let i = 0; i < shape[level]; i++) rows[i] = shaped(flat, shape, level + 1, at + i * step, step);
  return rows;
};
const revive = (value) => {
  if (typeof value !== "object" || value === null) return value;
  if (isArray(value)) {
    for (let i = 0; i < value.length; i++) value[i] = revive(value[i]);
    return value;
  }
  const keys = ownKeys(value);
  if (keys.length === 1 && keys[0] === token) return revived(value[token]);
  for (let i = 0; i < keys.length; i++) define2(value, keys[i], revive(value[keys[i]]));
  return value;
};
const define2 = (object, name, value) =>
  defineProperty(object, name, { value, writable: true, configurable: true, enumerable: true });

const mark = (kind, buffer, offset, size) => {
  const copy = new Bytes(size);
  apply(copyFrom, copy, [new Bytes(buffer, offset, size)]);
  outbound[outbound.length] = copy;
  marks++;
  return { __proto__: null, [token]: [outbound.length - 1, kind, size] };
};
const asObject = (map) => {
  const object = create(null);
  const pairs = [];
  let named = true;
  apply(mapForEach, map, [
    (value, key) => {
      pairs[pairs.length] = [key, value];
      if (typeof key === "string") define2(object, key, value);
      else named = false;
    },
  ]);
  return named ? object : pairs;
};
const asArray = (set) => {
  const items = [];
  apply(setForEach, set, [(item) => { items[items.length] = item; }]);
  return items;
};
const hooks = [
  [bigIntPrototype, function () { marks++; return { __proto__: null, [token]: apply(bigIntText, this, [16]) }; }],
  [mapPrototype, function () { return asObject(this); }],
  [setPrototype, function () { return asArray(this); }],
];
for (let i = 0; i < views.length; i++) {
  const [prototype, buffer, offset, size] = views[i];
  hooks[hooks.length] = [prototype, function () {
    const kind = prototype === typedArray ? apply(kindOfArray, this, []) : "DataView";
    return mark(kind, apply(buffer, this, []), apply(offset, this, []), apply(size, this, []));
  }];
}
for (let i = 0; i < buffers.length; i++) {
  const [prototype, size] = buffers[i];
  hooks[hooks.length] = [prototype, function () { return mark("ArrayBuffer", this, 0, apply(size, this, [])); }];
}

/** Return the JSON text of a value. The hooks are in place only meanwhile, so that a task sees plain JSON. */
const jsonOf = (value) => {
  outbound = [];
  const before = [];
  for (let i = 0; i < hooks.length; i++) {
    const [prototype, toJSON] = hooks[i];
    before[i] = getOwnPropertyDescriptor(prototype, "toJSON");
    if (before[i] === undefined) defineProperty(prototype, "toJSON", { __proto__: null, value: toJSON, configurable: true });
  }
  try {
    return stringify(value);
  } finally {
    for (let i = 0; i < hooks.length; i++) if (before[i] === undefined) deleteProperty(hooks[i][0], "toJSON");
  }
};
