"""A fresh instance of a component, and calls of its functions."""

from __future__ import annotations

import ctypes
from typing import Any

from wasmtime.component import Component

from runvisor.actors.wasm import capi as core
from runvisor.actors.wasm.components import capi
from runvisor.actors.wasm.components.imports import Linker
from runvisor.actors.wasm.fastpath import Store, address, raise_if


class Export:
    """A function that a component exports, found once for all its instances.

    Args:
        component: The component.
        name: Its name.
        instance: The exported instance that has it; empty is the component itself.
    """

    def __init__(self, component: Component, name: str, instance: str = "") -> None:
        self._component = component  # its exports live as long as it does
        owner = address(component)
        text = instance.encode()
        place = capi.export_index(owner, None, text, len(text)) if instance else None
        text = name.encode()
        self.index: int | None = capi.export_index(owner, place, text, len(text)) if place or not instance else None
        if place:
            capi.export_index_delete(place)

    def close(self) -> None:
        """Give it back; closing twice is fine."""
        index, self.index = self.index, None
        if index:
            capi.export_index_delete(index)


class Instance:
    """One instance, for one call. It goes with its store, which stays the caller's.

    Args:
        store: Fresh, with its limits set.
        linker: What the component may import.
        component: What to make an instance of.

    Raises:
        Stopped: Its start functions did not return, or a limit is too small.
    """

    def __init__(self, store: Store, linker: Linker, component: Component) -> None:
        self._store = store
        self._instance = ctypes.create_string_buffer(capi.INSTANCE_BYTES)
        raise_if(capi.instantiate(linker.address, store.context, address(component), self._instance), None)

    def call(self, export: Export, arguments: Any, count: int, result: Any) -> None:
        """Call a function.

        Args:
            export: Which.
            arguments: An array of component values that fit its type; they stay the caller's.
            count: How many.
            result: A component value that is written to, and then the caller's to delete; None if it gives nothing.

        Raises:
            Stopped: It did not return, or the values do not fit.
        """
        function = ctypes.create_string_buffer(capi.FUNC_BYTES)
        if not export.index or not capi.get_func(self._instance, self._store.context, export.index, function):
            raise_if(core.error_new(b"there is no such exported function"), None)
        out = ctypes.addressof(result) if result is not None else None
        error = capi.call(function, self._store.context, arguments, count, out, 0 if result is None else 1)
        raise_if(error, None)

    def call_with_text(self, export: Export, text: bytes) -> bytes:
        """Call a function from text to text, both UTF-8.

        Raises:
            Stopped: It did not return.
        """
        argument, result = capi.Val(), capi.Val()
        argument.kind = capi.KIND["string"]
        argument.of.string.size = len(text)
        argument.of.string.data = ctypes.cast(ctypes.c_char_p(text), type(argument.of.string.data))
        self.call(export, ctypes.addressof(argument), 1, result)
        try:
            return ctypes.string_at(result.of.string.data, result.of.string.size)
        finally:
            capi.val_delete(ctypes.addressof(result))
