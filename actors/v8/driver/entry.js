// What the guest process calls, by the number in the header: bridge.py's `Entry`.
const answers = create(null); // who waits for an answer, by number
const internals = {
  __proto__: null,
  ask, CALL, header, bytes, units, unitCount, putText, textOf, part, now, answers, define, fail,
  typedArray, copyFrom, timerId,
};
let inbox = bytes;
const take = (at, length) => textOf(new Units(inboxBuffer(), inboxOffset() + at, length), length);
const inboxBuffer = () => (inbox === bytes ? scratch : inbox);
const inboxOffset = () => (inbox === bytes ? HEADER_BYTES : 0);

/** Called with a text as its `this`: a string of the engine's own making, which costs nothing here. */
function enter() {
  stepping = true;
  switch (header[0]) {
    case 1: { // run: code, then inputs
      const length = header[2];
      const flags = { __proto__: null, kind: header[1], isText: header[3], callsMain: header[4], session: header[5], revive: header[6] };
      const code = apply(slice, this, [0, length]);
      let inputs = apply(slice, this, [length]);
      if (!flags.isText) inputs = parse(inputs);
      if (flags.revive) inputs = revive(inputs);
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
    case 6: // room for a long answer
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
      const text = take(0, length);
      const data = new Bytes(size);
      if (size) apply(copyFrom, data, [new Bytes(inboxBuffer(), inboxOffset() + 2 * length, size)]);
      inbox = bytes;
      listener(kind, text, data);
      return "";
    }
  }
}
/** Nothing: what is delivered with its value is the point. */
const idle = () => "";
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
return [enter, report, idle];
