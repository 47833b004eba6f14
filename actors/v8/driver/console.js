// The console: what it prints is written out before the call returns. Plain text and numbers are
// shown here; anything else takes the part that knows how to show objects.
const write = (stream, text) => {
  for (let at = 0; at < text.length; at += unitCount) {
    const length = min(unitCount, text.length - at);
    putText(text, at, length);
    ask(CALL.write, stream, length);
  }
};
let indent = "";
const print = (stream, items) => {
  let line = "";
  let plain = true;
  for (let i = 0; plain && i < items.length; i++) {
    const item = items[i];
    const kind = typeof item;
    if (kind === "string" && (i > 0 || items.length === 1 || !mayFormat(item))) line += i ? " " + item : item;
    else if (kind === "number" || kind === "boolean" || kind === "undefined" || item === null) {
      line += (i ? " " : "") + (kind === "number" && item === 0 && 1 / item < 0 ? "-0" : StringOf(item));
    } else plain = false;
  }
  if (!plain) line = part("inspect").format(items);
  if (indent) line = indent + part("inspect").indented(line, indent);
  write(stream, line + "\n");
};
const mayFormat = (text) => {
  for (let i = 0; i < text.length; i++) if (apply(charCodeAt, text, [i]) === 37) return true;
  return false;
};
const counts = create(null);
const clocks = create(null);
const elapsed = (label) => {
  label = StringOf(label);
  if (clocks[label] === undefined) return `Timer '${label}' does not exist`;
  const ms = now() - clocks[label];
  return `${label}: ${ms < 1000 ? `${StringOf(NumberOf(ms.toFixed(3)))}ms` : `${StringOf(NumberOf((ms / 1000).toFixed(3)))}s`}`;
};
const consoleMethods = {
  log: (...items) => print(1, items),
  info: (...items) => print(1, items),
  debug: (...items) => print(1, items),
  warn: (...items) => print(2, items),
  error: (...items) => print(2, items),
  trace: (...items) => print(2, [part("inspect").trace(items)]),
  dir: (item, options) => print(1, [part("inspect").inspect(item, options)]),
  dirxml: (...items) => print(1, items),
  table: (rows, columns) => print(1, [part("inspect").table(rows, columns)]),
  assert: (condition, ...items) => {
    if (!condition) print(2, items.length ? ["Assertion failed:", ...items] : ["Assertion failed"]);
  },
  count: (label = "default") => {
    label = StringOf(label);
    counts[label] = (counts[label] ?? 0) + 1;
    print(1, [`${label}: ${counts[label]}`]);
  },
  countReset: (label = "default") => {
    counts[StringOf(label)] = 0;
  },
  group: (...items) => {
    if (items.length) print(1, items);
    indent += "  ";
  },
  groupCollapsed: (...items) => consoleMethods.group(...items),
  groupEnd: () => {
    indent = indent.slice(2);
  },
  time: (label = "default") => {
    clocks[StringOf(label)] = now();
  },
  timeLog: (label = "default", ...items) => print(1, [elapsed(label), ...items]),
  timeEnd: (label = "default") => {
    print(1, [elapsed(label)]);
    deleteProperty(clocks, StringOf(label));
  },
  clear: () => {},
};
define(globalThis, "console", consoleMethods);
