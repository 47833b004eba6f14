// The hook that formats stacks belongs to the task, and so does its time.
// ENDS: timeout
// WITH: timeout_s=0.5
Error.prepareStackTrace = () => { for (;;); };
throw new Error("x");
