"""Turns a module that has run its start-up into a module that begins after it.

Everything that start-up leaves behind lies in linear memory and in mutable
globals. `instrument` makes the globals visible; when the start-up has run,
`rewrite` puts memory and globals back into the module as initial values.
Wasmtime then maps the memory copy-on-write for every instance.

The approach is that of Wizer (https://github.com/bytecodealliance/wizer); what
it cannot carry is refused: changes of tables, and passive data segments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from runvisor.actors.wasm.images import binary
from runvisor.actors.wasm.images.binary import Export, Reader, Unsupported, unsigned

_PREFIX: Final = "snapshot_global_"
_PAGE: Final = 4096
_WASM_PAGE: Final = 65536


def instrument(module: bytes) -> tuple[bytes, Mapping[str, int]]:
    """Return the module with its mutable globals exported, and each one's index by the export's name.

    Raises:
        Unsupported: The module holds something that a snapshot cannot carry.
    """
    sections = binary.read_sections(module)
    bodies = dict(sections)
    first = binary.imported(bodies.get(binary.IMPORT, b"\0"), binary.GLOBAL_KIND)
    names = {
        f"{_PREFIX}{index}": index
        for index, item in enumerate(binary.read_globals(bodies.get(binary.GLOBAL, b"\0")))
        if item.is_mutable
    }
    added = [Export(name, binary.GLOBAL_KIND, first + index) for name, index in names.items()]
    exports = binary.write_exports(binary.read_exports(bodies[binary.EXPORT]) + added)
    changed = [(number, exports if number == binary.EXPORT else body) for number, body in sections]
    return binary.write_sections(changed), names


def rewrite(module: bytes, memory: bytes, values: Mapping[int, float], keep: Collection[str]) -> bytes:
    """Return the module as it is after its start-up.

    Args:
        module: As `instrument` was given it.
        memory: The contents of its one memory.
        values: Mutable globals by the index that `instrument` gave.
        keep: The exports to keep; a guest reaches fewer functions so, and so does a mistake of ours.

    Raises:
        Unsupported: The module holds something that a snapshot cannot carry.
    """
    sections = binary.read_sections(module)
    bodies = dict(sections)
    _refuse_passive_data(bodies.get(binary.DATA, b"\0"))
    globals_ = [
        replace(item, initial=binary.constant(item.type, values[index])) if index in values else item
        for index, item in enumerate(binary.read_globals(bodies.get(binary.GLOBAL, b"\0")))
    ]
    exports = [item for item in binary.read_exports(bodies[binary.EXPORT]) if item.name in keep]
    pieces = _pieces(memory)
    replaced = {
        binary.MEMORY: _memory(bodies[binary.MEMORY], len(memory) // _WASM_PAGE),
        binary.GLOBAL: binary.write_globals(globals_),
        binary.EXPORT: binary.write_exports(exports),
        binary.DATA_COUNT: unsigned(len(pieces)),
        binary.DATA: unsigned(len(pieces))
        + b"".join(b"\0" + binary.constant(0x7F, at) + unsigned(len(data)) + data for at, data in pieces),
    }
    dropped = (binary.START, binary.CUSTOM)
    return binary.write_sections(
        (number, replaced.get(number, body)) for number, body in sections if number not in dropped
    )


def _memory(body: bytes, pages: int) -> bytes:
    reader = Reader(body)
    if reader.number() != 1:
        raise Unsupported("not exactly one memory")
    flags, _, most = reader.limits()
    return b"\1" + bytes([flags]) + unsigned(pages) + (unsigned(max(most, pages)) if most is not None else b"")


def _refuse_passive_data(body: bytes) -> None:
    reader = Reader(body)
    for _ in range(reader.number()):
        if reader.number() != 0:
            raise Unsupported("a data segment that is not laid out at the start")
        reader.expression()
        reader.take(reader.number())


def _pieces(memory: bytes) -> list[tuple[int, bytes]]:
    """Return the parts of a memory that are not zero, by their addresses, in whole pages of the machine."""
    pieces: list[tuple[int, bytes]] = []
    began: int | None = None
    for at in range(0, len(memory) + _PAGE, _PAGE):
        is_used = any(memory[at : at + _PAGE])
        if is_used and began is None:
            began = at
        elif not is_used and began is not None:
            pieces.append((began, memory[began:at]))
            began = None
    return pieces
