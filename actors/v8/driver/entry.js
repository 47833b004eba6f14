// What the guest process calls, by the number in the header: bridge.py's `Entry`.
const answers = create(null); // who waits for an answer, by number
const internals = {
  __proto__: null,
  ask, CALL, header, bytes, units, unitCount, putText, textOf, part, now, answers, define, fail,
  typedArray, copyFrom, timerId,
};
// Long texts come as strings of the engine's own making. The elements are there before any task:
// setting one never looks at Array.prototype.
const post = [null, null];
const collect = (index) => {
  const text = post[index];
  post[index] = null;
  return text;
};
let inbox = bytes;
const take = (at, length, wide) =>
  textOf(wide ? new Units(inboxBuffer(), inboxOffset() + at, length) : new Bytes(inboxBuffer(), inboxOffset() + at, length), length);
const inboxBuffer = () => (inbox === bytes ? scratch : inbox);
const inboxOffset = () => (inbox === bytes ? HEADER_BYTES : 0);

const enter = () => {
  stepping = true;
  switch (header[0]) {
    case 1: { // run: flags as ASCII, then code, then inputs
      const [, flagsLength, codeAt, codeLength, codeWide, inputsAt, inputsLength, inputsWide] = header;
      const flags = parse(take(0, flagsLength, false));
      const code = codeLength < 0 ? collect(0) : take(codeAt, codeLength, codeWide);
      let inputs = inputsLength < 0 ? collect(1) : take(inputsAt, inputsLength, inputsWide);
      if (!flags.isText) inputs = parse(inputs);
      if (flags.revive) inputs = revive(inputs);
      inbox = bytes;
      inbound = [];
      return run(code, inputs, flags);
    }
    case 2:
      return tick();
    case 3: // nothing: the report is asked for in any case
      return "";
    case 4: // a buffer for one leaf of the inputs
      return reserve(header[1], header[2] === 1);
    case 5: { // a buffer of the value
      const { buffer } = outbound[header[1]];
      return buffer;
    }
    case 6: // room for long texts
      return (inbox = new BufferOf(header[1]));
    case 7: // forget the running cell
      turn++;
      outcome = held = null;
      clearTimers();
      return "";
    case 8: { // the answer to a request: its number, what kind, its text, then its bytes
      const id = header[1], kind = header[2], length = header[3], size = header[4];
      const listener = answers[id];
      if (listener === undefined) return "";
      const text = take(0, length, true);
      const data = new Bytes(size);
      if (size) apply(copyFrom, data, [new Bytes(inboxBuffer(), inboxOffset() + 2 * length, size)]);
      inbox = bytes;
      listener(kind, text, data);
      return "";
    }
  }
};
lazily("text", ["TextEncoder", "TextDecoder", "atob", "btoa", "DOMException"]);
lazily("events", ["Event", "CustomEvent", "EventTarget", "AbortController", "AbortSignal"]);
lazily("data", ["structuredClone", "Blob", "File", "FormData", "crypto", "performance"]);
lazily("url", ["URL", "URLSearchParams"]);
lazily("streams", [
  "ReadableStream", "ReadableStreamDefaultReader", "ReadableStreamBYOBReader", "WritableStream",
  "WritableStreamDefaultWriter", "TransformStream", "ByteLengthQueuingStrategy", "CountQueuingStrategy",
]);
lazily("fetch", ["fetch", "Headers", "Request", "Response"]);
define(globalThis, "self", globalThis);
return [enter, report, post];
