"""Record programs in the kernel: bcc compiles, a scan and the verifier check, the JIT runs."""
