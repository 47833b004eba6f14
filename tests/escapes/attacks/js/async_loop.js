// An asynchronous loop too.
// ENDS: timeout
// WITH: timeout_s=0.5 memory_bytes=1024MiB
(async () => { for (;;) await null; })();
