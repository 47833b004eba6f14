"""How a module takes inputs and gives a value: as a command over stdin and stdout, or as a function of numbers.

1. A module that exports ``_start``, or imports WASI and exports ``main`` without
   parameters, is a command. stdin is the JSON text of the inputs (empty for
   None); the value is stdout if that is one JSON document, else None. Inputs of
   the form ``{"args": [text, ...]}``, with or without ``"stdin"`` (text or bytes),
   are its command line and its stdin instead.
2. Otherwise the exported function ``main``, else ``run``, else the only one, is
   called with numbers. A list or tuple gives the parameters in order, as does
   ``{"args": [...]}``; a number is the only parameter, None is none. Its result is
   the value: a number, a list of several, or None.

An i32 or i64 parameter takes whole numbers, signed or unsigned, of its width (True
is 1); a result is signed. An f32 or f64 parameter takes any number; an f32 rounds it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runvisor.policies.errors import InvalidTask, ProtocolError
from runvisor.policies.permissions import MiB
from runvisor.policies.values import Value, to_json

_START: Final = "_start"
_PROGRAM: Final = "main"
_MAX_ARGUMENT_BYTES: Final = 1 * MiB
_MAX_STDIN_BYTES: Final = 128 * MiB
_PREFERRED: Final = ("main", "run")
_LAYOUT: Final = {"i32": "i12x", "i64": "q8x", "f32": "f12x", "f64": "d8x"}
_BITS: Final = {"i32": 32, "i64": 64}


@dataclass(frozen=True, slots=True)
class Entry:
    """What of a module is called, and how."""

    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]
    is_command: bool
    uses_wasi: bool
    _arguments: struct.Struct = field(init=False, repr=False, compare=False)
    _values: struct.Struct = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, kinds in (("_arguments", self.parameters), ("_values", self.results)):
            layout = struct.Struct("<" + "".join(_LAYOUT[kind] for kind in kinds))
            object.__setattr__(self, name, layout)

    def arguments(self, inputs: Value) -> bytes:
        """Return the raw parameters of a function; none for a command.

        Raises:
            InvalidTask: The inputs are not numbers of the number and kinds it takes.

        Example:
            >>> Entry("f", ("i32",), (), False, False).arguments([-1]).hex()
            'ffffffff000000000000000000000000'
        """
        if self.is_command:
            return b""
        numbers = inputs if type(inputs) in (list, tuple) else _numbers(inputs)
        if len(numbers) != len(self.parameters):
            raise InvalidTask(
                f"{self.name} takes {self._shape()}, the inputs are {len(numbers)} numbers",
                "inputs",
                "pass a list with one number for each parameter",
            )
        return self._arguments.pack(
            *[
                _number(item, kind, index)
                for index, (item, kind) in enumerate(zip(numbers, self.parameters, strict=True))
            ]
        )

    def value(self, results: bytes) -> Value:
        """Return the value of a function's raw results.

        Raises:
            ProtocolError: They are not as many bytes as they must be.
        """
        if len(results) != self._values.size:
            raise ProtocolError(f"{len(results)} bytes of results where {self._values.size} are due")
        numbers = self._values.unpack(results)
        if len(numbers) == 1:
            return numbers[0]
        return list(numbers) or None

    def _shape(self) -> str:
        return f"({', '.join(self.parameters)})" if self.parameters else "no parameters"


def choose_entry(
    functions: Mapping[str, tuple[Sequence[str], Sequence[str]]], other_functions: Sequence[str], *, uses_wasi: bool
) -> Entry:
    """Choose what to call.

    Args:
        functions: Parameters and results of the exported functions of numbers.
        other_functions: Names of exported functions that take or give something else.
        uses_wasi: Whether the module imports WASI.

    Raises:
        InvalidTask: There is none to call, or more than one could be meant.

    Example:
        >>> choose_entry({"add": (["i32", "i32"], ["i32"])}, [], uses_wasi=False).name
        'add'
    """

    def entry(name: str, *, is_command: bool) -> Entry:
        parameters, results = functions[name]
        return Entry(name, tuple(parameters), tuple(results), is_command, uses_wasi)

    if _START in functions and not any(functions[_START]):
        return entry(_START, is_command=True)
    for name in _PREFERRED:
        if name in functions:
            parameters, results = functions[name]
            like_main = not parameters and list(results) in ([], ["i32"])
            return entry(name, is_command=name == "main" and uses_wasi and like_main)
        if name in other_functions:
            raise InvalidTask(
                f"{name} takes or gives something else than numbers",
                f"export {name}",
                "use i32, i64, f32 and f64, or read stdin and write stdout",
            )
    candidates = [name for name in functions if not name.startswith("_")]
    if len(candidates) == 1:
        return entry(candidates[0], is_command=False)
    if candidates:
        raise InvalidTask(
            f"the module exports several functions: {', '.join(sorted(candidates)[:8])}",
            "exports",
            "name the one to call main or run, or export only one",
        )
    raise InvalidTask(
        "the module exports no function of numbers to call",
        "exports",
        "export _start, main or run",
    )


def command_line(inputs: Value) -> tuple[list[str], bytes]:
    """Return the arguments of a command, its own name first, and its stdin.

    Raises:
        InvalidTask: They are too large, or hold what no argument or JSON text can.

    Example:
        >>> command_line({"args": ["-n", "3"], "stdin": "hello"})
        (['main', '-n', '3'], b'hello')
        >>> command_line({"x": 1})
        (['main'], b'{"x": 1}')
    """
    if not isinstance(inputs, Mapping) or "args" not in inputs or not set(inputs) <= {"args", "stdin"}:
        return [_PROGRAM], stdin_of(inputs)
    arguments = inputs["args"]
    if not isinstance(arguments, list | tuple) or not all(isinstance(item, str) for item in arguments):
        raise InvalidTask("args of a command are no list of text", "inputs['args']", "pass a list of str")
    stdin = inputs.get("stdin", b"")
    try:
        size = sum(len(item.encode()) for item in arguments)
        data = stdin.encode() if isinstance(stdin, str) else stdin
    except UnicodeEncodeError as error:
        raise InvalidTask(f"the inputs are no Unicode text: {error.reason}", "inputs") from None
    if size > _MAX_ARGUMENT_BYTES or any("\0" in item for item in arguments):
        raise InvalidTask(
            f"arguments are at most {_MAX_ARGUMENT_BYTES} bytes together, without a NUL", "inputs['args']"
        )
    if not isinstance(data, bytes) or len(data) > _MAX_STDIN_BYTES:
        raise InvalidTask(f"stdin is no text or bytes of at most {_MAX_STDIN_BYTES} bytes", "inputs['stdin']")
    return [_PROGRAM, *arguments], data


def stdin_of(inputs: Value) -> bytes:
    """Return the inputs as a command reads them: JSON in UTF-8, or nothing for None.

    Raises:
        InvalidTask: They are too large, or hold text that is not Unicode.
    """
    if inputs is None:
        return b""
    try:
        text = json.dumps(to_json(inputs), ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidTask(f"the inputs cannot be written as JSON: {error}", "inputs") from None
    if len(text) > _MAX_STDIN_BYTES:
        raise InvalidTask(f"the inputs take {len(text)} bytes as JSON, more than {_MAX_STDIN_BYTES}", "inputs")
    return text


def _numbers(inputs: Value) -> Sequence[Any]:
    if isinstance(inputs, Mapping):
        if set(inputs) != {"args"}:
            raise InvalidTask(
                f"inputs with the keys {', '.join(sorted(map(str, inputs)))} are not parameters",
                "inputs",
                "pass a list of numbers, or {'args': [...]}",
            )
        inputs = inputs["args"]
    if inputs is None:
        return ()
    if hasattr(inputs, "tolist"):  # numpy
        inputs = inputs.tolist()
    return inputs if isinstance(inputs, list | tuple) else (inputs,)


def _number(item: Any, kind: str, index: int) -> int | float:
    if type(item) is int and -(1 << 31) <= item < 1 << 31:  # fits all four, and is the usual case
        return item
    where = f"inputs[{index}]"
    item = getattr(item, "item", lambda: item)()  # a numpy scalar's own number
    bits = _BITS.get(kind)
    if bits is not None:
        if not isinstance(item, int):
            raise InvalidTask(f"a {type(item).__name__} where a whole number ({kind}) is due", where, "pass an int")
        if not -(1 << (bits - 1)) <= item < 1 << bits:
            raise InvalidTask(f"{_short(item)} does not fit in {kind}", where, f"pass at most {bits} bits")
        return item - (1 << bits) if item >= 1 << (bits - 1) else item
    if not isinstance(item, int | float):
        raise InvalidTask(f"a {type(item).__name__} where a number ({kind}) is due", where, "pass a float")
    try:
        struct.pack("<f" if kind == "f32" else "<d", item)
    except (OverflowError, struct.error):
        raise InvalidTask(f"{_short(item)} does not fit in {kind}", where, "pass a smaller number") from None
    return float(item)


def _short(number: float) -> str:
    """Write a number, but not thousands of digits of it."""
    bits = number.bit_length() if isinstance(number, int) else 0
    return f"a number of {bits} bits" if bits > 128 else str(number)
