"""The types that the functions of a wasm component take and give, and values of them."""
