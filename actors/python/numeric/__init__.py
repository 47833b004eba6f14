"""Runs hot numeric functions of a Python task as WebAssembly, with CPython's results."""
