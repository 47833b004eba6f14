"""Compiles the numeric part of Python to WebAssembly text: pure, from a syntax tree to a string."""
