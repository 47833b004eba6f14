"""The kernel as a witness: counters of what each execution did, kept by programs at every system call."""
