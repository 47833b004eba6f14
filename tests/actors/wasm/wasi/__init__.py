"""WASI, part by part."""
