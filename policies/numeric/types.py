"""The types that numeric Python is compiled with, and how they join.

A local variable has one type in its whole function. A variable or list that
holds integers here and floats there is a `NUMBER`: a float with a mark that
says whether Python would hold an integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class Unsupported(Exception):
    """The source does something that is not compiled; it runs in CPython as ever.

    Args:
        reason: What it is, in a few words.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type whose values are numbers in WebAssembly."""

    name: str
    wasm: str
    """WebAssembly type of a local."""
    size: int
    """Bytes of an element in a list."""
    load: str = ""
    store: str = ""


INT: Final = Scalar("int", "i64", 8, "i64.load", "i64.store")
FLOAT: Final = Scalar("float", "f64", 8, "f64.load", "f64.store")
BOOL: Final = Scalar("bool", "i32", 1, "i32.load8_u", "i32.store8")
NUMBER: Final = Scalar("number", "f64", 16, "f64.load", "f64.store")
"""Integer or float; integers up to 2**53 only, so that the float holds them exactly."""
CHAR: Final = Scalar("char", "i32", 4, "i32.load", "i32.store")
"""A string of one character."""
TEXT: Final = Scalar("str", "i32", 4, "i32.load", "i32.store")
"""A string: the address of a header like a list's."""
BYTES: Final = Scalar("bytes", "i32", 4, "i32.load", "i32.store")
NONE: Final = Scalar("None", "", 0)
UNKNOWN: Final = Scalar("unknown", "i64", 8, "i64.load", "i64.store")
"""Not found yet; what stays so is never reached."""
_BY_NAME: Final = {kind.name: kind for kind in (INT, FLOAT, BOOL, NUMBER, TEXT, BYTES, UNKNOWN)}
NUMERIC: Final = (INT, FLOAT, BOOL, NUMBER)


class Cell:
    """The element type of a list, shared by all names that may be that list."""

    __slots__ = ("_item", "_mutated", "_parent")

    def __init__(self, item: Type = UNKNOWN) -> None:
        self._parent: Cell | None = None
        self._item = item
        self._mutated = False

    def root(self) -> Cell:
        """Return the cell that speaks for all that were unified with this one."""
        cell = self
        while cell._parent is not None:
            cell = cell._parent
        return cell

    @property
    def item(self) -> Type:
        """The element type found up to now."""
        return self.root()._item

    @property
    def mutated(self) -> bool:
        """Whether the program may change such a list."""
        return self.root()._mutated

    def mutate(self) -> bool:
        """Note that the program changes such a list; return whether that is news."""
        root = self.root()
        news, root._mutated = not root._mutated, True
        return news

    def widen(self, item: Type) -> bool:
        """Let elements also be of a type; return whether anything became wider."""
        joined, changed = join(self.item, item)
        self.root()._item = joined
        self._forbid_itself()
        return changed

    def unify(self, other: Cell) -> bool:
        """Make two cells one; return whether anything changed."""
        mine, theirs = self.root(), other.root()
        if mine is theirs:
            return False
        joined, _ = join(mine._item, theirs._item)
        theirs._parent = mine
        mine._item = joined
        mine._mutated |= theirs._mutated
        mine._forbid_itself()
        return True

    def _forbid_itself(self) -> None:
        me = self.root()
        item = me._item
        while isinstance(item, ListOf):
            if item.cell.root() is me:
                me._item = UNKNOWN  # so that nobody walks in circles
                raise Unsupported("a list in itself")
            item = item.cell.item


@dataclass(frozen=True, slots=True, eq=False)
class ListOf:
    """A list; two list types are the same when their cells are."""

    cell: Cell
    wasm: str = "i32"
    size: int = 4
    load: str = "i32.load"
    store: str = "i32.store"

    @property
    def name(self) -> str:
        """As a signature spells it."""
        return f"list[{self.cell.item.name}]"


@dataclass(frozen=True, slots=True, eq=False)
class TupleOf:
    """A tuple on its way out of a function or into names; never stored."""

    items: tuple[Type, ...]
    wasm: str = ""
    size: int = 0
    load: str = ""
    store: str = ""

    @property
    def name(self) -> str:
        """As a signature spells it."""
        return f"tuple[{', '.join(item.name for item in self.items)}]"


Type = Scalar | ListOf | TupleOf


def same(left: Type, right: Type) -> bool:
    """Whether two types are one."""
    if isinstance(left, ListOf) and isinstance(right, ListOf):
        return left.cell.root() is right.cell.root()
    if isinstance(left, TupleOf) and isinstance(right, TupleOf):
        return len(left.items) == len(right.items) and all(map(same, left.items, right.items))
    return left is right


def join(left: Type, right: Type) -> tuple[Type, bool]:
    """Return the type of what may be either, and whether that is wider than ``left``.

    Raises:
        Unsupported: Nothing compiled can be either.

    Example:
        >>> join(INT, FLOAT)[0].name
        'number'
    """
    if right is UNKNOWN or left is right:
        return left, False
    if left is UNKNOWN:
        return right, True
    if isinstance(left, ListOf) and isinstance(right, ListOf):
        return left, left.cell.unify(right.cell)
    if isinstance(left, TupleOf) and isinstance(right, TupleOf) and len(left.items) == len(right.items):
        pairs = [join(a, b) for a, b in zip(left.items, right.items, strict=True)]
        changed = any(news for _, news in pairs)
        return (TupleOf(tuple(kind for kind, _ in pairs)), True) if changed else (left, False)
    numbers = (INT, FLOAT, NUMBER)
    if left in numbers and right in numbers:
        return NUMBER, left is not NUMBER
    raise Unsupported(f"a value that is {left.name} or {right.name}")


def parse(signature: str) -> Type:
    """Return the type that a signature names, with cells of its own.

    Example:
        >>> parse("list[list[float]]").name
        'list[list[float]]'
    """
    if signature.startswith("list["):
        return ListOf(Cell(parse(signature[5:-1])))
    return _BY_NAME[signature]
