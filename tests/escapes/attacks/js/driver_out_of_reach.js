// Nothing that is left in the isolate leads to the driver or to the guest process.
// ENDS: denied
const names = ["__runvisor", "__host", "host", "driver", "report", "box", "scratch", "token", "process", "require", "Deno", "Bun",
  "module", "exports", "global", "Buffer", "_pyminiracer", "d8", "load", "read", "readline", "quit", "os", "Worker", "print"];
const found = names.filter((name) => name in globalThis);
try { if (function () { return arguments.callee.caller; }() !== null) found.push("a caller"); } catch {}
found.length ? `ESCAPED ${found}` : "DENIED";
