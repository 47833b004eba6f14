"""Does a program stay inside what every Python arm answers alike? A look at its tree, before anything runs.

What is not surely alike counts as different: such a program loses nothing but an
arm. Not looked at, because it shows in errors only: their texts, and how deep
recursion may go.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from runvisor.policies.portable.annotations import annotation_objection
from runvisor.policies.portable.encodings import encoding_objection
from runvisor.policies.portable.formats import format_objection
from runvisor.policies.portable.names import PORTABLE_BUILTINS, PORTABLE_DUNDERS, PORTABLE_NAMES
from runvisor.policies.portable.numbers import WholeNumbers
from runvisor.policies.portable.sets import set_objection
from runvisor.policies.python_syntax import UNPARSABLE, parse_python

_FOREIGN: Final = (
    ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await, ast.TryStar,
)  # fmt: skip
_TRUSTED: Final = frozenset("abs bool frozenset int isinstance len map max min ord pow range set sorted sum".split())
"""Builtins whose meaning is relied on below."""
_NEWER: Final = frozenset({"is_integer", "from_number"})
"""Methods of numbers."""
_MANY: Final = 2**31
_STRUCT_CALLS: Final = frozenset({"pack", "unpack", "calcsize", "unpack_from", "iter_unpack", "pack_into"})
_DATES: Final = frozenset("aAbBdHIjmMpSUwWyYf%")
_ANNOUNCED: Final = frozenset({"_repr_html_", "_repr_markdown_", "_repr_svg_", "_repr_png_", "_repr_jpeg_",
                               "_repr_latex_", "_repr_json_", "_repr_mimebundle_"})  # fmt: skip

Objection = tuple[str, ast.AST]


def objection(code: str) -> str | None:
    r"""Say why a program is not portable, or None if it is.

    Args:
        code: Python source.

    Example:
        >>> objection("import math\nmath.isqrt(10)")
        >>> objection("import math\nmath.sin(1.0)")
        'line 2: math.sin may answer otherwise in another build of Python'
    """
    try:
        tree = parse_python(code)
    except UNPARSABLE:
        return "it does not parse in every version of Python"
    try:
        found = _Check(tree).objection()
    except RecursionError:
        return "it is nested too deeply to be checked"
    if found is None:
        return None
    why, node = found
    return f"line {getattr(node, 'lineno', 1)}: {why}"


class _Check:
    def __init__(self, tree: ast.Module) -> None:
        self._tree = tree
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self._modules: dict[str, str] = {}
        self._bound: set[str] = set()
        self._caught: set[str] = set()
        self._whole = WholeNumbers(tree)

    def objection(self) -> Objection | None:
        for node in ast.walk(self._tree):
            self._bind(node)
        if hidden := sorted((self._bound | self._caught) & _TRUSTED):
            return f"it redefines {hidden[0]}", self._tree
        for node in ast.walk(self._tree):
            if isinstance(node, _FOREIGN):
                return f"it holds {type(node).__name__}", node
            look = _LOOKS.get(type(node))
            why = look(self, node) if look is not None else None
            if why is not None:
                return why, node
        return (
            set_objection(self._tree, self._parents)
            or annotation_objection(self._tree)
            or format_objection(self._tree)
            or encoding_objection(self._tree)
        )

    def _bind(self, node: ast.AST) -> None:
        match node:
            case ast.Import(names=aliases):
                for alias in aliases:
                    if alias.asname is None and "." in alias.name:
                        self._bound.add(alias.name.partition(".")[0])  # and stays unknown as a module
                    else:
                        self._modules[alias.asname or alias.name] = alias.name
            case ast.ImportFrom(names=aliases):
                self._bound |= {alias.asname or alias.name for alias in aliases}
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                self._bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                self._bound.add(name)
            case ast.ExceptHandler(name=str(name)):
                self._caught.add(name)
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                self._bound.add(name)

    def _import(self, node: ast.Import) -> str | None:
        for alias in node.names:
            if alias.name not in PORTABLE_NAMES and alias.name != "struct":
                return f"it imports {alias.name}"
            if "." in alias.name and alias.asname is None:
                return f"it imports {alias.name} without a name of its own"
        return None

    def _import_from(self, node: ast.ImportFrom) -> str | None:
        module = node.module or ""
        if node.level or module not in PORTABLE_NAMES:
            return f"it imports {module or 'from its package'}"
        for alias in node.names:
            if alias.name not in PORTABLE_NAMES[module] or f"{module}.{alias.name}" in PORTABLE_NAMES:
                return _may_differ(f"{module}.{alias.name}")
        return None

    def _name(self, node: ast.Name) -> str | None:
        name = node.id
        if name in self._modules:
            parent = self._parents[node]
            is_read = isinstance(parent, ast.Attribute) and isinstance(parent.ctx, ast.Load)
            if not is_read or name in self._bound or name in self._caught:
                return f"the module {name} is used as a value"
            return None
        if name in self._caught and isinstance(node.ctx, ast.Load) and not self._is_raised(node):
            return f"it uses the exception {name}, whose text differs from version to version"
        if name in ("sum", "pow"):
            parent = self._parents[node]
            if not (isinstance(parent, ast.Call) and parent.func is node):
                return _may_differ(name)
        if name in self._bound or name in self._caught or name in PORTABLE_BUILTINS:
            return None
        return f"it uses {name}"

    def _is_raised(self, node: ast.Name) -> bool:
        parent = self._parents[node]
        if isinstance(parent, ast.Raise):
            return True
        return isinstance(parent, ast.Call) and getattr(parent.func, "id", "") in ("type", "isinstance")

    def _attribute(self, node: ast.Attribute) -> str | None:
        if node.attr.startswith("__") and node.attr.endswith("__") and node.attr not in PORTABLE_DUNDERS:
            return f"it uses {node.attr}"
        if isinstance(node.value, ast.Name) and node.value.id in self._modules:
            module = self._modules[node.value.id]
            if module == "struct":
                return self._struct(node)
            if node.attr not in PORTABLE_NAMES.get(module, ()) or f"{module}.{node.attr}" in PORTABLE_NAMES:
                return _may_differ(f"{module}.{node.attr}")
        if node.attr in _NEWER:
            return f"{node.attr} came to some types after Python 3.11"
        if node.attr in ("strftime", "strptime"):
            return self._date(node)
        return None

    def _struct(self, node: ast.Attribute) -> str | None:
        parent = self._parents[node]
        layout = parent.args[0] if isinstance(parent, ast.Call) and parent.func is node and parent.args else None
        text = layout.value if isinstance(layout, ast.Constant) else None
        if node.attr not in _STRUCT_CALLS or not isinstance(text, str) or text[:1] not in ("<", ">", "=", "!"):
            return "struct without < > = or ! has sizes of the machine"
        return None

    def _date(self, node: ast.Attribute) -> str | None:
        parent = self._parents[node]
        layout = parent.args[-1] if isinstance(parent, ast.Call) and parent.func is node and parent.args else None
        text = layout.value if isinstance(layout, ast.Constant) else None
        if not isinstance(text, str):
            return f"the format of {node.attr} is not a constant"
        letters = {after[:1] for after in text.replace("%%", "").split("%")[1:]}
        return None if letters <= _DATES else f"{node.attr} with %{min(letters - _DATES)} depends on the C library"

    def _call(self, node: ast.Call) -> str | None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name == "sum":
            whole = node.args and self._whole.holds_whole(node.args[0])
            start = [*node.args[1:], *(keyword.value for keyword in node.keywords)]
            if not whole or not all(map(self._whole.is_whole, start)):
                return "sum of what may be floats differs before Python 3.12"
        if (
            name == "pow"
            and len(node.args) != 3
            and not (len(node.args) == 2 and self._whole.is_power(node.args[0], node.args[1]))
        ):
            return "pow of what may be floats is the C library's"
        if name == "range" and not self._is_iterated(node) and any(map(_may_be_huge, node.args)):
            return "a range of more than 2**31 has no length everywhere"
        if name in ("getattr", "hasattr", "setattr") and not (len(node.args) > 1 and _is_harmless_name(node.args[1])):
            return f"{name} with a name that is computed"
        return None

    def _is_iterated(self, node: ast.Call) -> bool:
        parent = self._parents[node]
        return isinstance(parent, ast.For | ast.comprehension) and parent.iter is node

    def _operation(self, node: ast.BinOp) -> str | None:
        if isinstance(node.op, ast.Pow) and not self._whole.is_power(node.left, node.right):
            return "** of what may be floats is the C library's"
        return None

    def _augmented(self, node: ast.AugAssign) -> str | None:
        return "** of what may be floats is the C library's" if isinstance(node.op, ast.Pow) else None

    def _constant(self, node: ast.Constant) -> str | None:
        return "arithmetic of complex numbers differs from version to version" if type(node.value) is complex else None

    def _function(self, node: ast.FunctionDef) -> str | None:
        if node.name == "__del__" or node.name in _ANNOUNCED:
            return f"it defines {node.name}"
        return None


def _may_differ(name: str) -> str:
    return f"{name} may answer otherwise in another build of Python"


def _is_harmless_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.startswith("__")


def _may_be_huge(node: ast.expr) -> bool:
    inner: Iterator[ast.AST] = ast.walk(node)
    return any(
        (isinstance(part, ast.Constant) and isinstance(part.value, int) and abs(part.value) >= _MANY)
        or (isinstance(part, ast.BinOp) and isinstance(part.op, ast.Pow | ast.LShift))
        for part in inner
    )


_LOOKS: Final[Mapping[type[ast.AST], Callable[[_Check, Any], str | None]]] = {
    ast.Import: _Check._import,
    ast.ImportFrom: _Check._import_from,
    ast.Name: _Check._name,
    ast.Attribute: _Check._attribute,
    ast.Call: _Check._call,
    ast.BinOp: _Check._operation,
    ast.AugAssign: _Check._augmented,
    ast.Constant: _Check._constant,
    ast.FunctionDef: _Check._function,
}
