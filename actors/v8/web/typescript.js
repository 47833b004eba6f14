// The TypeScript compiler, for the isolate that does nothing but compile.
const ts = require("typescript");
export default () => ts;
