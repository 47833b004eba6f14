"""From source to a wasm module: one module for each toolchain, one jailed process for each compile.

`runvisor.actors.wasm.compilers.toolchain` says what a toolchain is, a module
named after it what it needs on this machine, and its recipe what runs in the jail.
"""
