"""Python on a CPython that was compiled to a wasm component: a fresh instance per task."""
