// The stack's frames give no function and no receiver of the driver.
// ENDS: denied
Error.prepareStackTrace = (_, frames) => frames;
const found = [];
for (const frame of new Error("x").stack) {
  for (const thing of [frame.getFunction?.(), frame.getThis?.()]) {
    if (thing !== undefined && thing !== null && thing !== globalThis) found.push(String(thing).slice(0, 80));
  }
}
Error.prepareStackTrace = undefined;
found.length ? `ESCAPED ${found}` : "DENIED";
