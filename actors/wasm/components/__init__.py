"""Wasm components: their types, their values, what they may import, and one call of one of them."""
