// Every constructor of code makes code of the same isolate.
// ENDS: denied ReferenceError
[
  () => Function("return process")(),
  () => (async () => {}).constructor("return process")()["then"] && Function("return require")(),
  () => (function* () {}).constructor("yield process")().next(),
  () => [].constructor.constructor("return Deno.cwd()")(),
  () => setTimeout.constructor("return process.binding('fs')")(),
  () => console.log.constructor("return process.mainModule")(),
].map(attempt).join("\n");
