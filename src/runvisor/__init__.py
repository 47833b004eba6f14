"""runvisor: the right sandbox at once for each piece of code that an agent writes.

The names below are the public API. They load on first use, so that a sandbox
child can import a leaf of the package without Ray.
"""
