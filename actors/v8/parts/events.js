// Events, and aborting.
((bridge) => {
  "use strict";
  const { now } = bridge;
  const { DOMException } = bridge.part("text");
  const hidden = Symbol("internal");

  // Events: https://dom.spec.whatwg.org/#events
  class Event {
    static NONE = 0;
    static CAPTURING_PHASE = 1;
    static AT_TARGET = 2;
    static BUBBLING_PHASE = 3;
    #type;
    #bubbles;
    #cancelable;
    #state = { target: null, current: null, stopped: false, prevented: false, passive: false, phase: 0, dispatching: false };
    #time = now();
    constructor(type, options = {}) {
      if (arguments.length === 0) throw new TypeError("an event needs a type");
      this.#type = String(type);
      this.#bubbles = Boolean(options?.bubbles);
      this.#cancelable = Boolean(options?.cancelable);
    }
    get type() { return this.#type; }
    get bubbles() { return this.#bubbles; }
    get cancelable() { return this.#cancelable; }
    get composed() { return false; }
    get isTrusted() { return false; }
    get timeStamp() { return this.#time; }
    get target() { return this.#state.target; }
    get srcElement() { return this.#state.target; }
    get currentTarget() { return this.#state.current; }
    get eventPhase() { return this.#state.phase; }
    get defaultPrevented() { return this.#state.prevented; }
    get returnValue() { return !this.#state.prevented; }
    composedPath() { return this.#state.current ? [this.#state.current] : []; }
    preventDefault() { if (this.#cancelable && !this.#state.passive) this.#state.prevented = true; }
    stopPropagation() {}
    stopImmediatePropagation() { this.#state.stopped = true; }
    [hidden]() { return this.#state; }
    get [Symbol.toStringTag]() { return "Event"; }
  }
  class CustomEvent extends Event {
    #detail;
    constructor(type, options = {}) {
      super(type, options);
      this.#detail = options?.detail ?? null;
    }
    get detail() { return this.#detail; }
  }
  const report = (error) => bridge.fail(error);
  class EventTarget {
    #listeners = new Map();
    addEventListener(type, callback, options = {}) {
      if (callback === null || callback === undefined) return;
      const { once = false, passive = false, signal, capture = false } = typeof options === "object" && options !== null ? options : { capture: Boolean(options) };
      if (signal?.aborted) return;
      const list = this.#listeners.get(String(type)) ?? [];
      if (list.some((item) => item.callback === callback && item.capture === Boolean(capture))) return;
      const item = { callback, once, passive, capture: Boolean(capture), removed: false };
      this.#listeners.set(String(type), [...list, item]);
      signal?.addEventListener("abort", () => this.removeEventListener(type, callback, options), { once: true });
    }
    removeEventListener(type, callback, options = {}) {
      const capture = Boolean(typeof options === "object" && options !== null ? options.capture : options);
      const list = this.#listeners.get(String(type)) ?? [];
      for (const item of list) if (item.callback === callback && item.capture === capture) item.removed = true;
      this.#listeners.set(String(type), list.filter((item) => !item.removed));
    }
    dispatchEvent(event) {
      const state = event[hidden]();
      if (state.dispatching) throw new DOMException("the event is being dispatched already", "InvalidStateError");
      Object.assign(state, { target: this, current: this, phase: 2, dispatching: true, stopped: false });
      for (const item of this.#listeners.get(event.type) ?? []) {
        if (item.removed || state.stopped) continue;
        if (item.once) this.removeEventListener(event.type, item.callback, item.capture);
        state.passive = item.passive;
        try {
          if (typeof item.callback === "function") item.callback.call(this, event);
          else item.callback.handleEvent(event);
        } catch (error) {
          report(error);
        }
        state.passive = false;
      }
      Object.assign(state, { current: null, phase: 0, dispatching: false });
      return !state.prevented;
    }
  }
  const handler = (prototype, name) => {
    const slots = new WeakMap();
    Object.defineProperty(prototype, `on${name}`, {
      configurable: true,
      enumerable: true,
      get() { return slots.get(this)?.callback ?? null; },
      set(callback) {
        let slot = slots.get(this);
        if (slot === undefined) {
          slot = { callback: null };
          slots.set(this, slot);
          this.addEventListener(name, (event) => slot.callback?.call(this, event));
        }
        slot.callback = typeof callback === "function" ? callback : null;
      },
    });
  };

  // Aborting: https://dom.spec.whatwg.org/#aborting-ongoing-activities
  class AbortSignal extends EventTarget {
    #aborted = false;
    #reason = undefined;
    #dependants = [];
    constructor(key) {
      if (key !== hidden) throw new TypeError("Illegal constructor");
      super();
    }
    get aborted() { return this.#aborted; }
    get reason() { return this.#reason; }
    throwIfAborted() { if (this.#aborted) throw this.#reason; }
    [hidden](reason = new DOMException("This operation was aborted", "AbortError")) {
      if (this.#aborted) return;
      this.#aborted = true;
      this.#reason = reason;
      this.dispatchEvent(new Event("abort"));
      for (const dependant of this.#dependants) dependant[hidden](reason);
    }
    static abort(reason) {
      const signal = new AbortSignal(hidden);
      signal[hidden](reason);
      return signal;
    }
    static timeout(delay) {
      const signal = new AbortSignal(hidden);
      setTimeout(() => signal[hidden](new DOMException("The operation was aborted due to timeout", "TimeoutError")), delay).unref();
      return signal;
    }
    static any(signals) {
      const signal = new AbortSignal(hidden);
      for (const source of signals) {
        if (source.#aborted) {
          signal[hidden](source.#reason);
          return signal;
        }
      }
      for (const source of signals) source.#dependants.push(signal);
      return signal;
    }
    get [Symbol.toStringTag]() { return "AbortSignal"; }
  }
  handler(AbortSignal.prototype, "abort");
  class AbortController {
    #signal = new AbortSignal(hidden);
    get signal() { return this.#signal; }
    abort(reason) { this.#signal[hidden](reason); }
    get [Symbol.toStringTag]() { return "AbortController"; }
  }

  return { Event, CustomEvent, EventTarget, AbortController, AbortSignal };
})
