// Headers, Request, Response and fetch: https://fetch.spec.whatwg.org. The transfer itself is the
// guest process's (fetch.py): a request is opened, and each chunk comes when it is asked for.
((bridge) => {
  "use strict";
  const { ask, CALL, bytes, putText, unitCount, answers } = bridge;
  const { TextEncoder, TextDecoder, bytesOf } = bridge.part("text");
  const { AbortController } = bridge.part("events");
  const { Blob, FormData, joined } = bridge.part("data");
  const { URL, URLSearchParams } = bridge.part("url");
  const { ReadableStream } = bridge.part("streams");
  const HEAD = 1, CHUNK = 2, END = 3, FAILED = 4;
  const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
  const encoder = new TextEncoder();

  class Headers {
    #list = [];
    constructor(init) {
      if (init === undefined || init === null) return;
      if (typeof init !== "object") throw new TypeError("headers come from an object, pairs or Headers");
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      for (const pair of pairs) {
        const [name, value, ...rest] = pair;
        if (value === undefined || rest.length) throw new TypeError("a header is a pair of name and value");
        this.append(name, value);
      }
    }
    #checked(name, value = "") {
      name = String(name);
      value = String(value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
      if (!TOKEN.test(name)) throw new TypeError(`'${name}' is not the name of a header`);
      if (/[\0\r\n]/.test(value) || /[^\0-\xff]/.test(value)) throw new TypeError(`the value of the header '${name}' holds a character that it may not`);
      return [name.toLowerCase(), value];
    }
    append(name, value) { this.#list.push(this.#checked(name, value)); }
    set(name, value) {
      const pair = this.#checked(name, value);
      this.delete(name);
      this.#list.push(pair);
    }
    delete(name) {
      const [key] = this.#checked(name);
      this.#list = this.#list.filter(([other]) => other !== key);
    }
    get(name) {
      const [key] = this.#checked(name);
      const values = this.#list.filter(([other]) => other === key).map(([, value]) => value);
      return values.length ? values.join(", ") : null;
    }
    getSetCookie() { return this.#list.filter(([name]) => name === "set-cookie").map(([, value]) => value); }
    has(name) {
      const [key] = this.#checked(name);
      return this.#list.some(([other]) => other === key);
    }
    *entries() {
      const names = [...new Set(this.#list.map(([name]) => name))].sort();
      for (const name of names) {
        if (name === "set-cookie") for (const value of this.getSetCookie()) yield [name, value];
        else yield [name, this.get(name)];
      }
    }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    forEach(callback, self) { for (const [name, value] of this.entries()) callback.call(self, value, name, this); }
    [Symbol.iterator]() { return this.entries(); }
    get [Symbol.toStringTag]() { return "Headers"; }
  }

  // A body: its stream or its bytes, and what type it says of itself.
  const multipart = async (form) => {
    const boundary = `----form-${globalThis.crypto.randomUUID()}`;
    const escaped = (text) => text.replace(/\r?\n|\r/g, "%0D%0A").replace(/"/g, "%22");
    const pieces = [];
    for (const [name, value] of form) {
      const head = `--${boundary}\r\nContent-Disposition: form-data; name="${escaped(name)}"`;
      if (value instanceof Blob) {
        pieces.push(encoder.encode(`${head}; filename="${escaped(value.name)}"\r\nContent-Type: ${value.type || "application/octet-stream"}\r\n\r\n`), await value.bytes(), encoder.encode("\r\n"));
      } else pieces.push(encoder.encode(`${head}\r\n\r\n${value.replace(/\r?\n|\r/g, "\r\n")}\r\n`));
    }
    pieces.push(encoder.encode(`--${boundary}--\r\n`));
    return [joined(pieces), `multipart/form-data; boundary=${boundary}`];
  };
  const bodyFrom = (init) => {
    if (init === null || init === undefined) return { content: null, type: null };
    if (init instanceof ReadableStream) return { content: init, type: null };
    if (init instanceof Blob) return { content: init.bytes(), type: init.type || null };
    if (init instanceof FormData) {
      const made = multipart(init);
      return { content: made.then(([data]) => data), type: made.then(([, type]) => type) };
    }
    if (init instanceof URLSearchParams) return { content: encoder.encode(String(init)), type: "application/x-www-form-urlencoded;charset=UTF-8" };
    if (ArrayBuffer.isView(init) || init instanceof ArrayBuffer) return { content: bytesOf(init).slice(), type: null };
    return { content: encoder.encode(String(init)), type: "text/plain;charset=UTF-8" };
  };
  const readAll = async (stream) => {
    const pieces = [];
    const reader = stream.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return joined(pieces);
      if (!(value instanceof Uint8Array)) throw new TypeError("a body is a stream of Uint8Array");
      pieces.push(value);
    }
  };
  class Body {
    #content;
    #stream = null;
    #used = false;
    constructor(content) { this.#content = content; }
    get body() {
      if (this.#content === null) return null;
      if (this.#content instanceof ReadableStream) return this.#content;
      if (this.#stream === null) {
        const content = this.#content;
        this.#stream = new ReadableStream({
          async start(controller) {
            const data = await content;
            if (data.length) controller.enqueue(data);
            controller.close();
          },
        });
        this.#content = this.#stream;
      }
      return this.#stream;
    }
    get bodyUsed() { return this.#used || (this.#content instanceof ReadableStream && this.#content.locked); }
    /** The content, to be used once: bytes, a promise of them, a stream or null. */
    taken() {
      if (this.bodyUsed) throw new TypeError("the body has been used already");
      if (this.#content !== null) this.#used = true;
      return this.#content;
    }
    halved() {
      if (this.bodyUsed) throw new TypeError("the body has been used already");
      if (!(this.#content instanceof ReadableStream)) return this.#content;
      const [mine, other] = this.#content.tee();
      this.#content = mine;
      return other;
    }
    async bytes() {
      const content = this.taken();
      return content instanceof ReadableStream ? readAll(content) : content === null ? new Uint8Array(0) : content;
    }
  }
  const withBody = (kind) => {
    const { prototype } = kind;
    const methods = {
      async bytes() { return (await this.content().bytes()).slice(); },
      async arrayBuffer() { return (await this.content().bytes()).slice().buffer; },
      async text() { return new TextDecoder().decode(await this.content().bytes()); },
      async json() { return JSON.parse(await this.text()); },
      async blob() { return new Blob([await this.content().bytes()], { type: this.headers.get("content-type") ?? "" }); },
      async formData() {
        const type = this.headers.get("content-type") ?? "";
        const form = new FormData();
        if (!type.startsWith("application/x-www-form-urlencoded")) throw new TypeError("only urlencoded forms can be read");
        for (const [name, value] of new URLSearchParams(await this.text())) form.append(name, value);
        return form;
      },
    };
    for (const name of Object.keys(methods)) bridge.define(prototype, name, methods[name]);
  };

  class Request {
    #body;
    #url;
    #method;
    #headers;
    #signal;
    #redirect;
    constructor(input, init = {}) {
      const from = input instanceof Request ? input : null;
      this.#url = from ? from.url : new URL(String(input)).href;
      const method = String(init.method ?? from?.method ?? "GET");
      if (!TOKEN.test(method)) throw new TypeError(`'${method}' is not a method`);
      this.#method = /^(delete|get|head|options|post|put|patch)$/i.test(method) ? method.toUpperCase() : method;
      if (/^(CONNECT|TRACE|TRACK)$/i.test(method)) throw new TypeError(`the method ${method} is forbidden`);
      this.#headers = new Headers(init.headers ?? from?.headers);
      this.#signal = init.signal ?? from?.signal ?? new AbortController().signal;
      this.#redirect = init.redirect ?? from?.redirect ?? "follow";
      const given = init.body ?? null;
      if (given !== null && (this.#method === "GET" || this.#method === "HEAD")) throw new TypeError(`a ${this.#method} request cannot have a body`);
      const { content, type } = given === null && from ? { content: from.content().taken(), type: null } : bodyFrom(given);
      this.#body = new Body(content);
      if (type && !this.#headers.has("content-type")) {
        if (typeof type === "string") this.#headers.set("content-type", type);
        else this.ready = type.then((text) => this.#headers.set("content-type", text));
      }
    }
    get url() { return this.#url; }
    get method() { return this.#method; }
    get headers() { return this.#headers; }
    get signal() { return this.#signal; }
    get redirect() { return this.#redirect; }
    get body() { return this.#body.body; }
    get bodyUsed() { return this.#body.bodyUsed; }
    content() { return this.#body; }
    clone() {
      const { url, method, headers, signal, redirect } = this;
      const copy = new Request(url, { method, headers, signal, redirect });
      copy.#body = new Body(this.#body.halved());
      return copy;
    }
    get [Symbol.toStringTag]() { return "Request"; }
  }
  withBody(Request);

  const EMPTY = [101, 204, 205, 304];
  class Response {
    #body;
    #state;
    #headers;
    constructor(body = null, init = {}) {
      const status = init.status === undefined ? 200 : Number(init.status);
      if (!(status >= 200 && status <= 599)) throw new RangeError(`the status ${status} is outside of 200 to 599`);
      if (body !== null && EMPTY.includes(status)) throw new TypeError(`a response of status ${status} has no body`);
      this.#headers = new Headers(init.headers);
      this.#state = { status, statusText: String(init.statusText ?? ""), url: "", redirected: false, type: "default" };
      const { content, type } = bodyFrom(body);
      this.#body = new Body(content);
      if (typeof type === "string" && !this.#headers.has("content-type")) this.#headers.set("content-type", type);
    }
    static received(head, stream) {
      const response = new Response(null, { headers: head.headers });
      response.#state = { status: head.status, statusText: head.statusText, url: head.url, redirected: head.redirected, type: "basic" };
      response.#body = new Body(EMPTY.includes(head.status) ? null : stream);
      return response;
    }
    static error() {
      const response = new Response();
      Object.assign(response.#state, { status: 0, type: "error" });
      return response;
    }
    static json(data, init = {}) {
      const headers = new Headers(init.headers);
      if (!headers.has("content-type")) headers.set("content-type", "application/json");
      return new Response(JSON.stringify(data), { ...init, headers });
    }
    static redirect(url, status = 302) {
      if (![301, 302, 303, 307, 308].includes(status)) throw new RangeError(`the status ${status} is no redirect`);
      return new Response(null, { status, headers: { location: new URL(String(url)).href } });
    }
    get status() { return this.#state.status; }
    get statusText() { return this.#state.statusText; }
    get ok() { return this.#state.status >= 200 && this.#state.status < 300; }
    get url() { return this.#state.url; }
    get redirected() { return this.#state.redirected; }
    get type() { return this.#state.type; }
    get headers() { return this.#headers; }
    get body() { return this.#body.body; }
    get bodyUsed() { return this.#body.bodyUsed; }
    content() { return this.#body; }
    clone() {
      const copy = new Response(null, { headers: this.#headers });
      copy.#state = { ...this.#state };
      copy.#body = new Body(this.#body.halved());
      return copy;
    }
    get [Symbol.toStringTag]() { return "Response"; }
  }
  withBody(Response);

  // How the console shows them.
  const shownAs = (kind, describe) =>
    bridge.define(kind.prototype, Symbol.for("nodejs.util.inspect.custom"), function (depth, options, inspect) {
      return depth < 0 ? `[${kind.name}]` : `${kind.name} ${inspect(describe(this))}`;
    });
  shownAs(Headers, (headers) => Object.fromEntries(headers));
  shownAs(Request, ({ method, url, headers, bodyUsed }) => ({ method, url, headers, bodyUsed }));
  shownAs(Response, ({ status, statusText, ok, url, headers, redirected, type, bodyUsed }) => ({ status, statusText, ok, url, headers, redirected, type, bodyUsed }));

  const failed = (text) => {
    const error = new TypeError(`fetch failed: ${text}`);
    error.cause = new Error(text);
    return error;
  };
  const open = (options) => {
    const text = JSON.stringify(options);
    if (text.length > unitCount) throw failed("the URL and the headers are too long");
    putText(text, 0, text.length);
    const id = ask(CALL.open, text.length, 0);
    if (id < 0) throw failed("too many requests at once, or altogether");
    return id;
  };
  /** Pass a body on, each piece when the last has left. */
  const upload = async (id, content, sent) => {
    const piece = async (data) => {
      for (let at = 0; at < data.length; at += 65536) {
        const part = data.subarray(at, at + 65536);
        bytes.set(part);
        const left = sent();
        ask(CALL.send, id, part.length);
        await left;
      }
    };
    if (content instanceof ReadableStream) {
      const reader = content.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        await piece(bytesOf(value));
      }
    } else await piece(content);
    ask(CALL.send, id, -1);
  };
  const fetch = async (input, init) => {
    const request = new Request(input, init);
    await request.ready;
    const { signal } = request;
    signal.throwIfAborted();
    let content = request.content().taken();
    if (content !== null && !(content instanceof ReadableStream)) content = await content;
    const id = open({
      url: request.url, method: request.method, headers: [...request.headers], redirect: request.redirect,
      body: content === null ? null : content instanceof ReadableStream ? -1 : content.length,
    });
    return new Promise((resolve, reject) => {
      let controller = null, pulled = null, left = null;
      const end = () => {
        delete answers[id];
        signal.removeEventListener("abort", abort);
      };
      const breakOff = (error) => {
        end();
        reject(error);
        left?.reject(error);
        controller?.error(error);
        pulled?.resolve();
      };
      const abort = () => {
        ask(CALL.close, id, 0);
        breakOff(signal.reason);
      };
      signal.addEventListener("abort", abort);
      answers[id] = (kind, text, data) => {
        if (kind === HEAD) {
          const stream = new ReadableStream({
            start(own) { controller = own; },
            pull() {
              pulled = Promise.withResolvers();
              ask(CALL.pull, id, 0);
              return pulled.promise;
            },
            cancel() {
              ask(CALL.close, id, 0);
              end();
            },
          }, { highWaterMark: 0 });
          const head = JSON.parse(text);
          if (EMPTY.includes(head.status) || request.method === "HEAD") ask(CALL.pull, id, 0);
          resolve(Response.received(head, stream));
        } else if (kind === CHUNK) {
          controller.enqueue(data);
          pulled?.resolve();
        } else if (kind === END) {
          end();
          controller.close();
          pulled?.resolve();
        } else if (kind === FAILED) breakOff(failed(text));
        else left?.resolve();
      };
      if (content !== null) {
        upload(id, content, () => (left = Promise.withResolvers()).promise).catch((error) => {
          ask(CALL.close, id, 0);
          breakOff(error);
        });
      }
    });
  };
  return { Headers, Request, Response, fetch };
})
