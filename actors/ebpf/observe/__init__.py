"""Observing what processes ask of the kernel, by programs at its tracepoints."""
