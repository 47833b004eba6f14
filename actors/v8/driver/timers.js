// Timers: the guest process says when it is time. One callback per turn, so that microtasks run between.
const timers = create(null);
let nextTimer = 1;
let alarm = 0; // when the guest process will call; 0 for never

class Timeout {
  #id;
  constructor(id) {
    this.#id = id;
  }
  static idOf(value) {
    return typeof value === "object" && value !== null && #id in value ? value.#id : value;
  }
  ref() {
    hold(this.#id, true);
    return this;
  }
  unref() {
    hold(this.#id, false);
    return this;
  }
  hasRef() {
    return timers[this.#id]?.held ?? false;
  }
  close() {
    clearTimer(this.#id);
    return this;
  }
  [Symbol.toPrimitive]() {
    return this.#id;
  }
}
const timerId = Timeout.idOf;
delete Timeout.idOf;

const now = () => ask(CALL.clock, 0, 0);
const earliest = () => {
  const ids = ownKeys(timers);
  let found;
  for (let i = 0; i < ids.length; i++) if (found === undefined || timers[ids[i]].due < timers[found].due) found = ids[i];
  return found;
};
const setAlarm = () => {
  const ids = ownKeys(timers);
  let held = 0;
  for (let i = 0; i < ids.length; i++) if (timers[ids[i]].held) held++;
  const first = earliest();
  alarm = first === undefined ? 0 : timers[first].due;
  ask(CALL.alarm, alarm, held);
};
const hold = (id, held) => {
  if (timers[id] === undefined) return;
  timers[id].held = held;
  setAlarm();
};
const addTimer = (callback, delay, repeats, args) => {
  if (typeof callback !== "function") throw new TypeErrorOf("the callback of a timer must be a function");
  delay = NumberOf(delay);
  if (!(delay >= 1 && delay <= 0x7fffffff)) delay = 1;
  const id = nextTimer++;
  timers[id] = { callback, args, due: now() + delay, every: repeats ? delay : 0, held: true };
  setAlarm();
  return new Timeout(id);
};
const clearTimer = (timer) => {
  const id = timerId(timer);
  if ((typeof id === "number" || typeof id === "string") && deleteProperty(timers, id)) setAlarm();
};
const tick = () => {
  const id = earliest();
  const time = now();
  if (id !== undefined && timers[id].due <= time) {
    const timer = timers[id];
    if (timer.every) timer.due = time + timer.every;
    else deleteProperty(timers, id);
    try {
      apply(timer.callback, undefined, timer.args);
    } catch (error) {
      fail(error);
    }
  }
  setAlarm();
  return "";
};
const clearTimers = () => {
  const ids = ownKeys(timers);
  for (let i = 0; i < ids.length; i++) deleteProperty(timers, ids[i]);
  setAlarm();
};

define(globalThis, "setTimeout", function setTimeout(callback, delay, ...args) {
  return addTimer(callback, delay, false, args);
});
define(globalThis, "setInterval", function setInterval(callback, delay, ...args) {
  return addTimer(callback, delay, true, args);
});
define(globalThis, "setImmediate", function setImmediate(callback, ...args) {
  return addTimer(callback, 0, false, args);
});
define(globalThis, "clearTimeout", function clearTimeout(timer) {
  clearTimer(timer);
});
define(globalThis, "clearInterval", function clearInterval(timer) {
  clearTimer(timer);
});
define(globalThis, "clearImmediate", function clearImmediate(timer) {
  clearTimer(timer);
});
define(globalThis, "queueMicrotask", function queueMicrotask(callback) {
  if (typeof callback !== "function") throw new TypeErrorOf("queueMicrotask takes a function");
  const run = () => {
    try {
      callback();
    } catch (error) {
      fail(error);
    }
  };
  apply(promiseThen, new PromiseOf((resolve) => resolve()), [run]);
});
