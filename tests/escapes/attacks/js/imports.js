// There is nothing to import from.
// ENDS: denied Error
const names = ["fs", "node:fs", "./task.js", "file:///etc/passwd", "https://example.com/x.js", "data:text/javascript,export default 1"];
const said = [];
for (const name of names) {
  try {
    await import(name);
    said.push(`ESCAPED ${name}`);
  } catch (error) {
    said.push(`DENIED ${error.name}`);
  }
}
export default said.join("\n");
