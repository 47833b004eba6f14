"""Adds a function to a module.

Source: https://webassembly.github.io/spec/core/binary/modules.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runvisor.actors.wasm.images.binary import (
    CODE,
    EXPORT,
    FUNCTION,
    FUNCTION_KIND,
    IMPORT,
    TYPE,
    Export,
    Reader,
    imported,
    read_exports,
    read_sections,
    unsigned,
    write_exports,
    write_sections,
)

_I32: Final = b"\x7f"
_END: Final = b"\x0b"


def exported_functions(module: bytes) -> Mapping[str, int]:
    """Return the indices of the functions that a module exports, by name."""
    exports = read_exports(dict(read_sections(module))[EXPORT])
    return {item.name: item.index for item in exports if item.kind == FUNCTION_KIND}


def add_function(module: bytes, name: str, *, parameters: int, variables: int, body: bytes) -> bytes:
    """Return the module with one more function, which it exports; all numbers are 32-bit integers.

    Args:
        module: Has functions already.
        name: What to export it as.
        parameters: How many it takes; it gives one.
        variables: How many it has beside these.
        body: Its instructions, without the end.

    Raises:
        Unsupported: The module holds something that this cannot read.
    """
    sections = read_sections(module)
    bodies = dict(sections)
    types, own = (Reader(bodies[number]).number() for number in (TYPE, FUNCTION))
    index = imported(bodies.get(IMPORT, b"\0"), FUNCTION_KIND) + own
    kind = b"\x60" + unsigned(parameters) + _I32 * parameters + unsigned(1) + _I32
    code = unsigned(1) + unsigned(variables) + _I32 + body + _END
    changed = {
        TYPE: _longer(bodies[TYPE], kind),
        FUNCTION: _longer(bodies[FUNCTION], unsigned(types)),
        EXPORT: write_exports([*read_exports(bodies[EXPORT]), Export(name, FUNCTION_KIND, index)]),
        CODE: _longer(bodies[CODE], unsigned(len(code)) + code),
    }
    return write_sections((number, changed.get(number, part)) for number, part in sections)


def _longer(vector: bytes, item: bytes) -> bytes:
    reader = Reader(vector)
    count = reader.number()
    return unsigned(count + 1) + reader.rest() + item
