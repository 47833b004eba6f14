// Timers that set timers run until the deadline and no longer.
// ENDS: timeout
// WITH: timeout_s=0.5
new Promise(() => { setInterval(() => {}, 0); for (let i = 0; i < 1000; i++) setTimeout(() => {}, i); });
