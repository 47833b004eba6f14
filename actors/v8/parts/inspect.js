// How values look on the console: the format of Node's util.inspect, as far as programs meet it.
(() => {
  "use strict";
  const DEPTH = 2, MAX_ITEMS = 100, MAX_TEXT = 10000, WIDTH = 72, COMPACT = 3;
  const isName = /^[A-Za-z_$][\w$]*$/;
  const tagOf = (value) => Object.prototype.toString.call(value).slice(8, -1);
  const quoted = (text) => {
    const quote = !text.includes("'") ? "'" : !text.includes('"') ? '"' : !text.includes("`") && !text.includes("${") ? "`" : "'";
    let out = "";
    for (const char of text) {
      const code = char.codePointAt(0);
      if (char === quote || char === "\\") out += "\\" + char;
      else if (code === 10) out += "\\n";
      else if (code === 13) out += "\\r";
      else if (code === 9) out += "\\t";
      else if (code < 32 || code === 127) out += "\\x" + code.toString(16).toUpperCase().padStart(2, "0");
      else if (code >= 0xd800 && code <= 0xdfff) out += "\\u" + code.toString(16).toUpperCase();
      else out += char;
    }
    return quote + out + quote;
  };
  const constructorName = (value) => {
    for (let at = value; at !== null; at = Object.getPrototypeOf(at)) {
      const own = Object.getOwnPropertyDescriptor(at, "constructor");
      if (own && typeof own.value === "function" && own.value.name !== "") return own.value.name;
    }
    return null;
  };
  const primitive = (value, context, top) => {
    switch (typeof value) {
      case "string": {
        if (top) return value;
        const more = value.length > MAX_TEXT ? `... ${value.length - MAX_TEXT} more characters` : "";
        return quoted(more ? value.slice(0, MAX_TEXT) : value) + more;
      }
      case "number":
        return Object.is(value, -0) ? "-0" : String(value);
      case "bigint":
        return `${value}n`;
      case "symbol":
        return Symbol.prototype.toString.call(value);
      default:
        return String(value);
    }
  };
  const keysOf = (value, context, skipIndexes) => {
    const keys = context.showHidden ? Reflect.ownKeys(value) : Object.keys(value).concat(
      Object.getOwnPropertySymbols(value).filter((key) => Object.prototype.propertyIsEnumerable.call(value, key)));
    return skipIndexes ? keys.filter((key) => typeof key === "symbol" || !/^(0|[1-9]\d*)$/.test(key)) : keys;
  };
  const keyText = (key) => (typeof key === "symbol" ? `[${Symbol.prototype.toString.call(key)}]` : isName.test(key) ? key : quoted(key));
  const property = (holder, key, context, level) => {
    const slot = Object.getOwnPropertyDescriptor(holder, key);
    if (slot === undefined) return `${keyText(key)}: undefined`;
    let text;
    if (slot.get) text = slot.set ? "[Getter/Setter]" : "[Getter]";
    else if (slot.set) text = "[Setter]";
    else text = show(slot.value, context, level + 1);
    return `${slot.enumerable ? keyText(key) : `[${String(key)}]`}: ${text}`;
  };
  const functionText = (value, keys) => {
    const source = Function.prototype.toString.call(value);
    if (source.startsWith("class")) {
      const parent = Object.getPrototypeOf(value);
      return `[class ${value.name || "(anonymous)"}${parent && parent !== Function.prototype && parent.name ? ` extends ${parent.name}` : ""}]`;
    }
    const kind = tagOf(value);
    return `[${kind}${value.name ? `: ${value.name}` : " (anonymous)"}]`;
  };
  const errorText = (value, context, level) => {
    let text = typeof value.stack === "string" && value.stack ? value.stack : String(value);
    // Only the frames of the program: the rest is how it came to run.
    text = text.split("\n").filter((line) => !/^\s+at /.test(line) || !/<anonymous>(?::\d+:\d+)?\)?$/.test(line)).join("\n");
    if (level > 0) text = text.split("\n").join(`\n${"  ".repeat(level)}`);
    return /\n\s+at /.test(text) ? text : `[${text}]`;
  };
  const groupNumbers = (output, value) => {
    // As Node does: short entries of a long array go into columns of equal width.
    let total = 0, longest = 0, count = output.length;
    if (value.length > MAX_ITEMS) count--;
    const sizes = [];
    for (let i = 0; i < count; i++) {
      sizes[i] = output[i].length;
      total += sizes[i] + 2;
      longest = Math.max(longest, sizes[i]);
    }
    const width = longest + 2;
    if (width * 3 + 2 >= 80 || !(total / width > 5 || longest <= 6)) return output;
    const columns = Math.min(Math.round(Math.sqrt(2.5 * Math.max(width - total / output.length, 1) * count) / Math.max(width - total / output.length, 1)),
      Math.floor((80 - 2) / width), COMPACT * 4, 15);
    if (columns <= 1) return output;
    const rows = [], widths = [];
    for (let i = 0; i < columns; i++) {
      let most = 0;
      for (let j = i; j < count; j += columns) most = Math.max(most, sizes[j]);
      widths.push(most + 2);
    }
    const numbers = value.every === undefined ? false : Array.prototype.every.call(value, (item) => typeof item === "number" || typeof item === "bigint");
    for (let i = 0; i < count; i += columns) {
      const end = Math.min(i + columns, count);
      let row = "", j = i;
      for (; j < end - 1; j++) {
        const cell = `${output[j]}, `;
        row += numbers ? cell.padStart(widths[j - i]) : cell.padEnd(widths[j - i]);
      }
      row += numbers ? output[j].padStart(widths[j - i] - 2) : output[j];
      rows.push(row);
    }
    if (value.length > MAX_ITEMS) rows.push(output[count]);
    return rows;
  };
  const joined = (output, prefix, open, close, context, level, value, isList) => {
    if (output.length === 0) return `${prefix}${open}${close}`;
    const entries = output.length;
    if (isList && entries > 6) output = groupNumbers(output, value);
    if (context.depthSeen - level < COMPACT && entries === output.length) {
      const start = output.length + level * 2 + open.length + prefix.length + 10;
      const length = output.reduce((sum, item) => sum + item.length, output.length + start);
      if (length <= 80 && !output.some((item) => item.includes("\n"))) return `${prefix}${open} ${output.join(", ")} ${close}`;
    }
    const pad = `\n${"  ".repeat(level)}`;
    return `${prefix}${open}${pad}  ${output.join(`,${pad}  `)}${pad}${close}`;
  };
  const show = (value, context, level, top = false) => {
    if (value === null || (typeof value !== "object" && typeof value !== "function")) return primitive(value, context, top);
    const custom = value[Symbol.for("nodejs.util.inspect.custom")];
    if (typeof custom === "function") {
      const text = custom.call(value, context.depth - level, {}, inspect);
      if (text !== value) return typeof text === "string" ? text : show(text, context, level);
    }
    const circle = context.seen.indexOf(value);
    if (circle >= 0) {
      if (!context.circular.has(value)) context.circular.set(value, context.circular.size + 1);
      return `[Circular *${context.circular.get(value)}]`;
    }
    const name = constructorName(value);
    const tag = typeof value[Symbol.toStringTag] === "string" && value[Symbol.toStringTag] !== name ? value[Symbol.toStringTag] : "";
    const labelled = (fallback, size = "") =>
      `${name === null ? `[${fallback}${size}: null prototype]` : name + size} ${tag && tag !== fallback ? `[${tag}] ` : ""}`;
    if (level > context.depth) {
      return `[${Array.isArray(value) ? "Array" : name === null ? "Object: null prototype" : name}]`;
    }
    context.depthSeen = level;
    context.seen.push(value);
    const output = [];
    let prefix = "", open = "{", close = "}", isList = false, skipIndexes = false;
    const more = (left) => left > 0 && output.push(`... ${left} more item${left > 1 ? "s" : ""}`);
    const kind = tagOf(value);
    if (Array.isArray(value)) {
      isList = skipIndexes = true;
      open = "[";
      close = "]";
      prefix = name === "Array" ? "" : `${name ?? "[Array: null prototype]"}(${value.length}) `;
      let shown = 0;
      let at = 0;
      for (; at < value.length && shown < MAX_ITEMS; shown++) {
        if (at in value) output.push(show(value[at++], context, level + 1));
        else {
          let holes = 0;
          while (at < value.length && !(at in value)) { at++; holes++; }
          output.push(`<${holes} empty item${holes > 1 ? "s" : ""}>`);
        }
      }
      more(value.length - at);
    } else if (ArrayBuffer.isView(value) && !(value instanceof DataView)) {
      isList = skipIndexes = true;
      open = "[";
      close = "]";
      prefix = `${name}(${value.length}) `;
      for (let i = 0; i < Math.min(value.length, MAX_ITEMS); i++) output.push(primitive(value[i]));
      more(value.length - MAX_ITEMS);
    } else if (value instanceof Map) {
      prefix = labelled("Map", `(${value.size})`);
      let left = value.size;
      for (const [key, item] of Map.prototype.entries.call(value)) {
        if (output.length >= MAX_ITEMS) break;
        left--;
        output.push(`${show(key, context, level + 1)} => ${show(item, context, level + 1)}`);
      }
      more(left);
    } else if (value instanceof Set) {
      prefix = labelled("Set", `(${value.size})`);
      let left = value.size;
      for (const item of Set.prototype.values.call(value)) {
        if (output.length >= MAX_ITEMS) break;
        left--;
        output.push(show(item, context, level + 1));
      }
      more(left);
    } else if (typeof value === "function") {
      prefix = functionText(value);
      if (keysOf(value, context).length === 0) { context.seen.pop(); return prefix; }
      prefix += " ";
    } else if (value instanceof Error) {
      prefix = errorText(value, context, level);
      const extra = keysOf(value, context).filter((key) => key !== "stack" && key !== "message");
      if (Object.hasOwn(value, "cause") && !extra.includes("cause")) output.push(`[cause]: ${show(value.cause, context, level + 1)}`);
      if (Array.isArray(value.errors) && !extra.includes("errors")) output.push(`[errors]: ${show(value.errors, context, level + 1)}`);
      if (extra.length === 0 && output.length === 0) { context.seen.pop(); return prefix; }
      prefix += " ";
      for (const key of extra) output.push(property(value, key, context, level));
      const pad = `\n${"  ".repeat(level)}`;
      context.seen.pop();
      return `${prefix}{${pad}  ${output.join(`,${pad}  `)}${pad}}`;
    } else if (value instanceof Date) {
      prefix = Number.isNaN(value.getTime()) ? "Invalid Date" : Date.prototype.toISOString.call(value);
      if (keysOf(value, context).length === 0) { context.seen.pop(); return prefix; }
      prefix += " ";
    } else if (value instanceof RegExp) {
      prefix = RegExp.prototype.toString.call(value);
      if (keysOf(value, context).length === 0) { context.seen.pop(); return prefix; }
      prefix += " ";
    } else if (value instanceof Promise) {
      prefix = labelled("Promise");
      output.push("<state unknown>");
    } else if (value instanceof ArrayBuffer || kind === "SharedArrayBuffer") {
      prefix = labelled("ArrayBuffer");
      const content = new Uint8Array(value);
      const hex = Array.from(content.subarray(0, 50), (byte) => byte.toString(16).padStart(2, "0")).join(" ");
      output.push(`[Uint8Contents]: <${hex}${content.length > 50 ? ` ... ${content.length - 50} more bytes` : ""}>`, `byteLength: ${content.length}`);
    } else if (value instanceof WeakMap || value instanceof WeakSet) {
      prefix = labelled(kind);
      output.push("<items unknown>");
    } else if (kind === "Number" || kind === "String" || kind === "Boolean" || kind === "BigInt" || kind === "Symbol") {
      prefix = `[${kind}: ${primitive(value.valueOf())}]`;
      skipIndexes = kind === "String";
      if (keysOf(value, context, skipIndexes).length === 0) { context.seen.pop(); return prefix; }
      prefix += " ";
    } else if (kind === "Arguments") {
      isList = skipIndexes = true;
      open = "[";
      close = "]";
      prefix = "[Arguments] ";
      for (const item of Array.from(value)) output.push(show(item, context, level + 1));
    } else if (kind === "Generator" || kind === "AsyncGenerator") {
      prefix = `Object [${kind}] `;
    } else if (name !== "Object" || tag) {
      prefix = labelled("Object");
    }
    for (const key of keysOf(value, context, skipIndexes)) output.push(property(value, key, context, level));
    context.seen.pop();
    if (context.circular.has(value)) prefix = `<ref *${context.circular.get(value)}> ${prefix}`;
    return joined(output, prefix, open, close, context, level, value, isList);
  };
  const inspect = (value, options = {}) => {
    const depth = options?.depth === null ? Infinity : options?.depth ?? DEPTH;
    return show(value, { depth, showHidden: options?.showHidden ?? false, seen: [], circular: new Map(), depthSeen: 0 }, 0);
  };
  const format = (items) => {
    let line = "", from = 0;
    if (typeof items[0] === "string" && items.length > 1) {
      from = 1;
      line = items[0].replace(/%[sdifjoOc%]/g, (mark) => {
        if (mark === "%%") return "%";
        if (from >= items.length) return mark;
        const item = items[from++];
        switch (mark[1]) {
          case "s":
            return typeof item === "object" && item !== null && !(item instanceof Error) ? inspect(item, { depth: 0 }) : typeof item === "bigint" ? `${item}n` : Object.is(item, -0) ? "-0" : String(item);
          case "d":
            return typeof item === "bigint" ? `${item}n` : typeof item === "object" ? "NaN" : String(Number(item));
          case "i":
            return typeof item === "bigint" ? `${item}n` : typeof item === "object" ? "NaN" : String(parseInt(item));
          case "f":
            return String(parseFloat(item));
          case "j":
            try { return JSON.stringify(item); } catch { return "[Circular]"; }
          case "c":
            return "";
          default:
            return inspect(item, { depth: 4 });
        }
      });
    }
    for (let i = from; i < items.length; i++) line += (i ? " " : "") + (typeof items[i] === "string" ? items[i] : inspect(items[i]));
    return line;
  };
  const trace = (items) => {
    const stack = new Error().stack.split("\n").filter((line) => /^\s+at /.test(line) && !/<anonymous>(?::\d+:\d+)?\)?$/.test(line));
    return ["Trace" + (items.length ? `: ${format(items)}` : ""), ...stack].join("\n");
  };
  const cellWidth = (text) => {
    let width = 0;
    for (const char of text) width += char.codePointAt(0) >= 0x1100 && /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u.test(char) ? 2 : 1;
    return width;
  };
  const table = (rows, columns) => {
    if (rows === null || typeof rows !== "object") return format([rows]);
    const entries = rows instanceof Map ? [...rows].map(([key, value], i) => [String(i), key, value]) : rows instanceof Set ? [...rows].map((value, i) => [String(i), undefined, value]) : Object.keys(rows).map((key) => [key, undefined, rows[key]]);
    const names = [], cells = [];
    let hasValues = false;
    for (const [, , row] of entries) {
      if (row !== null && typeof row === "object") { for (const key of Object.keys(row)) if (!names.includes(key)) names.push(key); }
      else hasValues = true;
    }
    const chosen = Array.isArray(columns) ? columns.map(String) : names;
    const isMap = rows instanceof Map;
    const isIterated = isMap || rows instanceof Set;
    const head = [isIterated ? "(iteration index)" : "(index)", ...(isMap ? ["Key"] : []), ...chosen, ...(hasValues ? ["Values"] : [])];
    for (const [index, key, row] of entries) {
      const isRow = row !== null && typeof row === "object";
      cells.push([index, ...(isMap ? [inspect(key, { depth: 0 })] : []), ...chosen.map((name) => (isRow && Object.hasOwn(row, name) ? inspect(row[name], { depth: 0 }) : "")),
        ...(hasValues ? [isRow ? "" : inspect(row, { depth: 0 })] : [])]);
    }
    const widths = head.map((name, i) => Math.max(cellWidth(name), ...cells.map((row) => cellWidth(row[i]))) + 2);
    const line = (left, middle, right) => left + widths.map((width) => "\u2500".repeat(width)).join(middle) + right;
    const row = (items) => `\u2502${items.map((item, i) => ` ${item}${" ".repeat(widths[i] - cellWidth(item) - 1)}`).join("\u2502")}\u2502`;
    return [line("\u250c", "\u252c", "\u2510"), row(head), line("\u251c", "\u253c", "\u2524"), ...cells.map(row), line("\u2514", "\u2534", "\u2518")].join("\n");
  };
  const indented = (text, indent) => text.replaceAll("\n", `\n${indent}`);
  return { inspect, format, trace, table, indented };
})
