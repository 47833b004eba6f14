"""Images: interpreters as WebAssembly, started once when they are built, so that a run begins after that."""
