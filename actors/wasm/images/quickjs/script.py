"""One call for a whole script, added to the interpreter's module.

A host that calls a guest six times for the smallest program spends more time
on the calls than the program takes. The function added here makes them inside:
evaluate, hand the value to the driver, run what became due, ask for the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runvisor.actors.wasm.images.binary import signed, unsigned
from runvisor.actors.wasm.images.functions import add_function, exported_functions
from runvisor.actors.wasm.images.manifest import Fact

NAME: Final = "run_script"
LENGTH_AT: Final = 24
"""In the image's words: where the length of a text is written. The value of the script is in the first word."""
_STORE: Final = b"\x36\x02\x00"
_DROP, _SET, _IF, _RETURN, _LOOP, _AGAIN, _END = b"\x1a", b"\x21", b"\x04\x40", b"\x0f", b"\x03\x40", b"\x0d\0", b"\x0b"


def with_script(module: bytes, facts: Mapping[str, Fact]) -> bytes:
    """Return the module with the function `NAME`: place and size of a script, and whether it calls its ``main``.

    It gives the address of the report's text; or 0, when the first word holds an exception.
    """
    functions = exported_functions(module)

    def constant(number: int) -> bytes:
        return b"\x41" + signed(number)

    def given(index: int) -> bytes:
        return b"\x20" + unsigned(index)

    def call(name: str) -> bytes:
        return b"\x10" + unsigned(functions[name])

    def drive(entry: str, arguments: int) -> bytes:
        handles = constant(int(facts[entry])), constant(int(facts["undefined"]))
        return b"".join([*handles, constant(arguments), constant(words), call("qjs_call")])

    words = int(facts["words_at"])
    place, size, calls_main, value = range(4)
    body = [
        *(given(place), given(size), constant(int(facts["filename_at"])), constant(0), call("qjs_eval")),
        *(_SET, unsigned(value)),
        *(constant(words), given(value), _STORE),
        *(given(value), call("qjs_is_exception"), _IF, constant(0), _RETURN, _END),
        *(constant(words + 4), given(calls_main), _STORE),
        *(constant(words + 8), constant(int(facts["false"])), _STORE),
        *(drive("finish_script", 3), _DROP),
        *(_LOOP, call("qjs_execute_pending_job"), _AGAIN, _END),
        *(drive("tell", 0), constant(words + LENGTH_AT), call("qjs_get_string_len")),
    ]
    return add_function(module, NAME, parameters=3, variables=1, body=b"".join(body))
