// Text, base64 and DOMException.
((bridge) => {
  "use strict";
  const { define } = bridge;

  // DOMException: https://webidl.spec.whatwg.org/#idl-DOMException
  const CODES = {
    IndexSizeError: 1, HierarchyRequestError: 3, WrongDocumentError: 4, InvalidCharacterError: 5, NotFoundError: 8,
    NotSupportedError: 9, InvalidStateError: 11, SyntaxError: 12, InvalidModificationError: 13, NamespaceError: 14,
    InvalidAccessError: 15, TypeMismatchError: 17, SecurityError: 18, NetworkError: 19, AbortError: 20,
    URLMismatchError: 21, QuotaExceededError: 22, TimeoutError: 23, InvalidNodeTypeError: 24, DataCloneError: 25,
  };
  class DOMException extends Error {
    #name;
    constructor(message = "", options = "Error") {
      super(message);
      this.#name = String((typeof options === "object" && options !== null ? options.name : options) ?? "Error");
      if (typeof options === "object" && options !== null && "cause" in options) define(this, "cause", options.cause);
      define(this, "stack", String(this.stack).replace(/^[^\n]*/, `${this.#name}: ${this.message}`));
    }
    get name() {
      return this.#name;
    }
    get code() {
      return CODES[this.#name] ?? 0;
    }
    get [Symbol.toStringTag]() {
      return "DOMException";
    }
  }

  // Text: https://encoding.spec.whatwg.org
  class TextEncoder {
    get encoding() {
      return "utf-8";
    }
    encode(input = "") {
      const text = String(input);
      const target = new Uint8Array(text.length * 3);
      return target.slice(0, this.encodeInto(text, target).written);
    }
    encodeInto(source, target) {
      const text = String(source);
      let read = 0, at = 0;
      while (read < text.length) {
        let code = text.charCodeAt(read), units = 1;
        if (code >= 0xd800 && code <= 0xdfff) {
          const next = code < 0xdc00 && read + 1 < text.length ? text.charCodeAt(read + 1) : 0;
          if (next >= 0xdc00 && next <= 0xdfff) {
            code = 0x10000 + ((code - 0xd800) << 10) + (next - 0xdc00);
            units = 2;
          } else code = 0xfffd;
        }
        const size = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
        if (at + size > target.length) break;
        if (size === 1) target[at++] = code;
        else {
          const shift = (size - 1) * 6;
          target[at++] = (0xf00 >> size & 0xff) | (code >> shift);
          for (let s = shift - 6; s >= 0; s -= 6) target[at++] = 0x80 | ((code >> s) & 0x3f);
        }
        read += units;
      }
      return { read, written: at };
    }
  }
  const LABELS = {
    "utf-8": "utf-8 utf8 unicode-1-1-utf-8 unicode11utf8 unicode20utf8 x-unicode20utf8",
    "utf-16le": "utf-16le utf-16 ucs-2 unicode csunicode iso-10646-ucs-2 unicodefeff",
    "utf-16be": "utf-16be unicodefffe",
    "windows-1252": "windows-1252 ascii latin1 iso-8859-1 iso8859-1 us-ascii l1 cp1252 x-cp1252 ansi_x3.4-1968 cp819 ibm819",
  };
  const WINDOWS_1252 = [
    0x20ac, 0x81, 0x201a, 0x192, 0x201e, 0x2026, 0x2020, 0x2021, 0x2c6, 0x2030, 0x160, 0x2039, 0x152, 0x8d, 0x17d, 0x8f,
    0x90, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022, 0x2013, 0x2014, 0x2dc, 0x2122, 0x161, 0x203a, 0x153, 0x9d, 0x17e, 0x178,
  ];
  const bytesOf = (input) => {
    if (input === undefined) return new Uint8Array(0);
    if (ArrayBuffer.isView(input)) return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
    if (input instanceof ArrayBuffer || input instanceof SharedArrayBuffer) return new Uint8Array(input);
    throw new TypeError("an ArrayBuffer or a view of one is needed");
  };
  class TextDecoder {
    #encoding;
    #fatal;
    #ignoreBOM;
    #rest = new Uint8Array(0);
    #begun = false;
    constructor(label = "utf-8", options = {}) {
      const wanted = String(label).trim().toLowerCase();
      this.#encoding = Object.keys(LABELS).find((name) => LABELS[name].split(" ").includes(wanted));
      if (this.#encoding === undefined) throw new RangeError(`the encoding '${label}' is not supported`);
      this.#fatal = Boolean(options?.fatal);
      this.#ignoreBOM = Boolean(options?.ignoreBOM);
    }
    get encoding() {
      return this.#encoding;
    }
    get fatal() {
      return this.#fatal;
    }
    get ignoreBOM() {
      return this.#ignoreBOM;
    }
    decode(input, options = {}) {
      const flush = !options?.stream;
      let data = bytesOf(input);
      if (this.#rest.length) {
        const whole = new Uint8Array(this.#rest.length + data.length);
        whole.set(this.#rest);
        whole.set(data, this.#rest.length);
        data = whole;
      }
      const units = [];
      const rest = this.#encoding === "utf-8" ? this.#utf8(data, units, flush)
        : this.#encoding === "windows-1252" ? this.#oneByte(data, units) : this.#utf16(data, units, flush);
      this.#rest = flush ? new Uint8Array(0) : data.slice(rest);
      let text = "";
      for (let at = 0; at < units.length; at += 8192) text += String.fromCharCode.apply(null, units.slice(at, at + 8192));
      if (!this.#begun && text.length && !this.#ignoreBOM && this.#encoding !== "windows-1252" && text.charCodeAt(0) === 0xfeff) text = text.slice(1);
      this.#begun = flush ? false : this.#begun || units.length > 0;
      return text;
    }
    #bad(units) {
      if (this.#fatal) {
        this.#rest = new Uint8Array(0);
        this.#begun = false;
        throw new TypeError(`the data is not valid ${this.#encoding}`);
      }
      units.push(0xfffd);
    }
    #oneByte(data, units) {
      for (const byte of data) units.push(byte >= 0x80 && byte < 0xa0 ? WINDOWS_1252[byte - 0x80] : byte);
      return data.length;
    }
    #utf16(data, units, flush) {
      const high = this.#encoding === "utf-16be" ? 0 : 1;
      let at = 0;
      for (; at + 1 < data.length; at += 2) {
        const unit = (data[at + high] << 8) | data[at + 1 - high];
        if (unit >= 0xd800 && unit <= 0xdbff) {
          if (at + 3 >= data.length) {
            if (!flush) return at;
            this.#bad(units);
            return data.length;
          }
          const next = (data[at + 2 + high] << 8) | data[at + 3 - high];
          if (next >= 0xdc00 && next <= 0xdfff) {
            units.push(unit, next);
            at += 2;
          } else this.#bad(units);
        } else if (unit >= 0xdc00 && unit <= 0xdfff) this.#bad(units);
        else units.push(unit);
      }
      if (flush && at < data.length) this.#bad(units);
      return at;
    }
    #utf8(data, units, flush) {
      let at = 0;
      while (at < data.length) {
        const first = data[at];
        if (first < 0x80) {
          units.push(first);
          at++;
          continue;
        }
        let more = 0, lower = 0x80, upper = 0xbf, code = 0;
        if (first >= 0xc2 && first <= 0xdf) { more = 1; code = first & 0x1f; }
        else if (first >= 0xe0 && first <= 0xef) {
          more = 2;
          code = first & 0xf;
          if (first === 0xe0) lower = 0xa0;
          if (first === 0xed) upper = 0x9f;
        } else if (first >= 0xf0 && first <= 0xf4) {
          more = 3;
          code = first & 0x7;
          if (first === 0xf0) lower = 0x90;
          if (first === 0xf4) upper = 0x8f;
        }
        let seen = 0;
        while (seen < more && at + 1 + seen < data.length) {
          const byte = data[at + 1 + seen];
          if (byte < lower || byte > upper) break;
          lower = 0x80;
          upper = 0xbf;
          code = (code << 6) | (byte & 0x3f);
          seen++;
        }
        if (more && seen < more && at + 1 + seen >= data.length && !flush) return at;
        if (!more || seen < more) this.#bad(units);
        else if (code < 0x10000) units.push(code);
        else units.push(0xd800 + ((code - 0x10000) >> 10), 0xdc00 + ((code - 0x10000) & 0x3ff));
        at += 1 + seen;
      }
      return at;
    }
  }

  // Base64: https://infra.spec.whatwg.org/#forgiving-base64
  const btoa = (input) => {
    const text = String(input);
    const data = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      if (code > 255) throw new DOMException("the text holds characters outside of Latin1", "InvalidCharacterError");
      data[i] = code;
    }
    return data.toBase64();
  };
  const atob = (input) => {
    const text = String(input).replace(/[\t\n\f\r ]/g, "");
    let data;
    try {
      if (text.length % 4 && text.includes("=")) throw new SyntaxError();
      data = Uint8Array.fromBase64(text);
    } catch {
      throw new DOMException("the text is not correctly encoded base64", "InvalidCharacterError");
    }
    let out = "";
    for (let at = 0; at < data.length; at += 8192) out += String.fromCharCode.apply(null, data.subarray(at, at + 8192));
    return out;
  };

  return { DOMException, TextEncoder, TextDecoder, atob, btoa, bytesOf };
})
