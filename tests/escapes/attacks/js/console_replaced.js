// Its own console can be replaced; the host reads pipes.
// ENDS: ok
console.log = console.error = () => { throw new Error("no"); };
globalThis.console = null;
"answered";
