// Modules, and the cells of a session, as what one evaluation can run: V8 alone takes neither a
// top-level await nor a second `const x`. Edits keep every line where it was, and are recorded, so
// that the place of an error can be told in the user's columns.
const { parse } = require("acorn");

const BUILTINS = new Set(("assert async_hooks buffer child_process cluster console crypto dgram dns events fs http http2 https " +
  "inspector module net os path perf_hooks process punycode querystring readline repl stream string_decoder sys " +
  "timers tls tty url util v8 vm wasi worker_threads zlib").split(" "));
const missing = (specifier) => {
  const name = String(specifier);
  const base = name.replace(/^node:/, "").split("/")[0];
  const why = BUILTINS.has(base)
    ? "it is part of Node.js, and this runtime has the language and Web APIs only"
    : "packages and files are not loaded here; bundle them into one file, for example with esbuild --bundle";
  return `Cannot find module '${name}': ${why}`;
};

class Stop extends Error {
  constructor(what, node) {
    super(what);
    this.node = node;
  }
}

const walk = (node, visit, inFunction = false) => {
  if (node === null || typeof node !== "object") return;
  if (Array.isArray(node)) {
    for (const item of node) walk(item, visit, inFunction);
    return;
  }
  if (typeof node.type !== "string") return;
  visit(node, inFunction);
  const inner = inFunction || /Function/.test(node.type) || node.type === "StaticBlock" || node.type === "PropertyDefinition";
  for (const key of Object.keys(node)) if (key !== "loc" && key !== "type") walk(node[key], visit, inner);
};
const namesIn = (pattern) => {
  switch (pattern?.type) {
    case "Identifier": return [pattern.name];
    case "ObjectPattern": return pattern.properties.flatMap((item) => namesIn(item.type === "RestElement" ? item.argument : item.value));
    case "ArrayPattern": return pattern.elements.flatMap(namesIn);
    case "AssignmentPattern": return namesIn(pattern.left);
    case "RestElement": return namesIn(pattern.argument);
    default: return [];
  }
};
const declared = (node) => (node.type === "VariableDeclaration" ? node.declarations.flatMap((item) => namesIn(item.id)) : node.id ? [node.id.name] : []);

/** Apply edits, and say for each where it now stands: [line, column, length now, length before]. */
const applied = (code, edits) => {
  // Where both begin, what is put before comes before what is put instead.
  edits.sort((a, b) => a.start - b.start || (a.end > a.start) - (b.end > b.start) || a.order - b.order);
  let text = "", at = 0, line = 1, column = 1;
  const places = [];
  const take = (piece) => {
    text += piece;
    const last = piece.lastIndexOf("\n");
    if (last < 0) column += piece.length;
    else {
      line += piece.split("\n").length - 1;
      column = piece.length - last;
    }
  };
  for (const { start, end, put } of edits) {
    take(code.slice(at, start));
    const before = code.slice(start, end);
    if (!before.includes("\n")) places.push([line, column, put.length, end - start]);
    take(put);
    at = end;
  }
  take(code.slice(at));
  return { text, places };
};
const blank = (text) => text.replace(/[^\n]/g, " ");

const translate = (code, session, name) => {
  let tree;
  try {
    tree = parse(code, {
      ecmaVersion: "latest", sourceType: session ? "script" : "module", locations: true, allowHashBang: true,
      allowAwaitOutsideFunction: true, allowImportExportEverywhere: session,
    });
  } catch (error) {
    if (!error.loc) throw error;
    const what = `SyntaxError: ${error.message.replace(/ \(\d+:\d+\)$/, "")}`;
    return { error: { kind: "syntax", what, where: `${error.loc.line}:${error.loc.column + 1}` } };
  }
  const edits = [];
  const edit = (start, end, put) => edits.push({ start, end, put, order: edits.length });
  let awaits = false, callsMain = false;
  try {
    walk(tree.body, (node, inFunction) => {
      if (!inFunction && (node.type === "AwaitExpression" || node.await === true || node.kind === "await using")) awaits = true;
      if (!inFunction && node.type === "CallExpression" && node.callee.name === "main") callsMain = true;
      if (node.type === "ImportExpression") edit(node.start, node.start + 6, "__rv_import");
      if (node.type === "MetaProperty" && node.meta.name === "import") edit(node.start, node.end, "__rv_meta");
    });
    const wrapped = !session || awaits || edits.length > 0;
    const exported = new Map(); // what a name is exported as -> the expression for it
    const names = [];
    let head = "";
    const statement = (node) => {
      switch (node.type) {
        case "ImportDeclaration":
        case "ExportAllDeclaration":
          throw new Stop(missing(node.source.value), node);
        case "ExportNamedDeclaration":
          if (node.source) throw new Stop(missing(node.source.value), node);
          if (node.declaration) {
            edit(node.start, node.declaration.start, blank(code.slice(node.start, node.declaration.start)));
            for (const own of declared(node.declaration)) exported.set(own, own);
            statement(node.declaration);
          } else {
            for (const item of node.specifiers) exported.set(item.exported.name ?? item.exported.value, item.local.name);
            edit(node.start, node.end, blank(code.slice(node.start, node.end)));
          }
          return;
        case "ExportDefaultDeclaration": {
          const { declaration } = node;
          if (/^(Function|Class)Declaration$/.test(declaration.type) && declaration.id) {
            edit(node.start, declaration.start, blank(code.slice(node.start, declaration.start)));
            exported.set("default", declaration.id.name);
            statement(declaration);
          } else {
            edit(node.start, declaration.start, `${session ? ";globalThis.main =" : "__rv_export.default ="} ${"\n".repeat(code.slice(node.start, declaration.start).split("\n").length - 1)}`);
            if (code[node.end - 1] !== ";") edit(node.end, node.end, ";");
          }
          return;
        }
      }
      if (!session) {
        if (/Declaration$/.test(node.type) && declared(node).includes("main") && !exported.has("main")) exported.set("main", "main");
        return;
      }
      if (node.type === "VariableDeclaration" && !/using/.test(node.kind)) {
        if (!wrapped) {
          if (node.kind !== "var") edit(node.start, node.start + node.kind.length, "var".padEnd(node.kind.length));
        } else {
          names.push(...declared(node));
          edit(node.start, node.start + node.kind.length, ";(");
          const ends = code[node.end - 1] === ";";
          edit(ends ? node.end - 1 : node.end, ends ? node.end - 1 : node.end, ends ? ")" : ");");
        }
        for (const item of node.declarations) if (item.init === null && (wrapped || node.kind !== "var")) edit(item.id.end, item.id.end, " = undefined");
      } else if (node.type === "ClassDeclaration") {
        names.push(node.id.name);
        edit(node.start, node.start, wrapped ? `;${node.id.name} = ` : `var ${node.id.name} = `);
        edit(node.end, node.end, ";");
      } else if (node.type === "FunctionDeclaration" && wrapped) head += `globalThis.${node.id.name} = ${node.id.name};`;
    };
    for (const node of tree.body) statement(node);
    const last = tree.body.at(-1);
    if (wrapped && last?.type === "ExpressionStatement" && last.directive === undefined) {
      edit(last.expression.start, last.expression.start, "return (");
      edit(last.expression.end, last.expression.end, ")");
    }
    let start = "";
    if (wrapped) {
      const pairs = [...exported].map(([as, own]) => `${JSON.stringify(as)}: ${own}`);
      start = `(async (__rv_export, __rv_meta, __rv_import) => {${session ? head : `"use strict";__rv_export(() => ({${pairs.join(", ")}}));`}`;
      edits.push({ start: 0, end: 0, put: start, order: -1 });
      if (code.startsWith("#!")) edit(0, 2, "//");
    }
    const { text, places } = applied(code, edits);
    return { code: `${text}\n${wrapped ? "})" : ""}\n//# sourceURL=${name}`, edits: places, wrapped, names, callsMain };
  } catch (error) {
    if (!(error instanceof Stop)) throw error;
    const { line, column } = error.node.loc.start;
    return { error: { kind: "error", what: `Error: ${error.message}`, stack: `    at ${name}:${line}:${column + 1}`, syntax: false } };
  }
};

export default () => ({
  translate,
  meta: (name) => ({ __proto__: null, url: `file:///${name}`, filename: name }),
  importing: async (specifier) => {
    throw new Error(missing(specifier));
  },
  require: (specifier) => {
    throw new Error(missing(specifier));
  },
});
