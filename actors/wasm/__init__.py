"""WebAssembly under Wasmtime: a fresh store per execution, in one jailed engine process per principal."""
