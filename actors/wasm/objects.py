"""Reads from a wasm object file which functions it defines and which symbols it lacks.

Runs inside the compiler's jail: an object file is made from hostile source.
Source: https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_HEADER: Final = b"\0asm\1\0\0\0"
_CUSTOM, _IMPORT = 0, 2
_SYMBOL_TABLE: Final = 8
_FUNCTION, _DATA, _SECTION = 0, 1, 3
_WEAK, _LOCAL, _UNDEFINED, _EXPLICIT_NAME = 1, 2, 0x10, 0x40


class NotAnObject(Exception):
    """The bytes are no object file that this reader knows."""


@dataclass(frozen=True, slots=True)
class Symbols:
    """The symbols of one object file that others may see."""

    functions: tuple[str, ...]
    """Functions that it defines."""
    undefined: tuple[str, ...]
    """Functions and data that it needs from elsewhere; weak ones excluded."""


def read_symbols(data: bytes) -> Symbols:
    """Read the symbol table of an object file.

    Raises:
        NotAnObject: It is malformed.
    """
    try:
        return _Reader(data).symbols()
    except (IndexError, UnicodeDecodeError) as error:
        raise NotAnObject(str(error)) from None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def symbols(self) -> Symbols:
        if self._data[: len(_HEADER)] != _HEADER:
            raise NotAnObject("no wasm header")
        self._at = len(_HEADER)
        imported: list[str] = []
        while self._at < len(self._data):
            kind, size = self._byte(), self._number()
            end = self._at + size
            if kind == _IMPORT:
                imported = self._function_imports()
            elif kind == _CUSTOM and self._name() == "linking":
                return self._linking(end, imported)
            self._at = end
        raise NotAnObject("no linking section")

    def _linking(self, end: int, imported: list[str]) -> Symbols:
        self._number()  # version
        while self._at < end:
            kind, size = self._byte(), self._number()
            if kind == _SYMBOL_TABLE:
                return self._table(imported)
            self._at += size
        return Symbols((), ())

    def _table(self, imported: list[str]) -> Symbols:
        functions: list[str] = []
        undefined: list[str] = []
        for _ in range(self._number()):
            kind, flags = self._byte(), self._number()
            name = ""
            if kind == _DATA:
                name = self._name()
                if not flags & _UNDEFINED:
                    for _ in range(3):
                        self._number()
            elif kind == _SECTION:
                self._number()
            else:
                index = self._number()
                if not flags & _UNDEFINED or flags & _EXPLICIT_NAME:
                    name = self._name()
                elif kind == _FUNCTION:
                    name = imported[index]
            if flags & _UNDEFINED and kind in (_FUNCTION, _DATA) and not flags & _WEAK:
                undefined.append(name)
            elif kind == _FUNCTION and not flags & (_LOCAL | _UNDEFINED):
                functions.append(name)
        return Symbols(tuple(functions), tuple(undefined))

    def _function_imports(self) -> list[str]:
        """Return the names of imported functions, whose indices come first."""
        names: list[str] = []
        for _ in range(self._number()):
            self._name()
            name, kind = self._name(), self._byte()
            if kind == 0:  # function: its type
                self._number()
                names.append(name)
            elif kind == 3:  # global: type and mutability
                self._at += 2
            elif kind == 4:  # tag: attribute and type
                self._byte()
                self._number()
            else:  # table: element type and limits; memory: limits
                if kind == 1:
                    self._byte()
                has_maximum = self._number() & 1
                self._number()
                if has_maximum:
                    self._number()
        return names

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        """Read an unsigned LEB128."""
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return result
            shift += 7
            if shift > 63:
                raise NotAnObject("a number is too long")

    def _name(self) -> str:
        size = self._number()
        self._at += size
        if self._at > len(self._data):
            raise IndexError("a name is cut off")
        return self._data[self._at - size : self._at].decode()
