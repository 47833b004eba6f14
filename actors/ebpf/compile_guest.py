"""Inside the jail: turn a piece of C into the instructions of its functions, with bcc and LLVM as the compiler only.

No map is made and no program is loaded, so the process holds no capability and no
bpf(2). It sees hostile text and is trusted by nobody: one child per text, and what it
answers is scanned like bytes from a guest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket
from runvisor.actors.ebpf import bcc_package
from runvisor.actors.ebpf.agreement import BODY_NAME, FUNCTION
from runvisor.actors.ebpf.line_table import Entry, read_lines
from runvisor.actors.ebpf.llvm_object import PRINT_MODULE, flush_output, object_of
from runvisor.policies.records import PROGRAM_FILE

HEADERS: Final = Path(__file__).resolve().parent / "headers"
"""The few headers that bcc's own include: ours, in place of the kernel's."""
_FLAGS: Final = (
    "-Werror=implicit-function-declaration",
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
    "-Werror=return-type",
)
_MODULE_NAME: Final = "rv_module.ll"
_WARM_TEXT: Final = f"int {FUNCTION}(struct __sk_buff *skb) {{ return skb->len > 3; }}"


def preload(options: dict[str, Any]) -> None:
    """Load LLVM and compile once, in the zygote: a child's first compile is then three times as fast."""
    del options
    os.environ["BCC_KERNEL_SOURCE"] = str(HEADERS)
    compile_text(_WARM_TEXT, (FUNCTION,))


def prepare(options: dict[str, Any]) -> None:
    """Nothing is left to prepare."""
    del options


def serve(channel: FrameSocket, prepared: None) -> None:
    """Compile one text, answer, and let the process end.

    The compiler's messages go to standard error. An LLVM that gives up aborts the
    process; the host reads what it said and sees how it ended.
    """
    del prepared
    request = channel.receive()
    if request is None:
        return
    channel.send({"op": "started"})
    Path(BODY_NAME).write_text(request["body"])
    answer: dict[str, Any]
    try:
        if request["wants_lines"]:
            shown, lines = compile_lines(request["main"])
            answer = {"op": "compiled", "lines": lines, "shown": shown}
        else:
            answer = {"op": "compiled", "instructions": compile_text(request["main"], request["functions"])}
    except Exception:  # bcc raises a bare Exception; its reasons are on standard error
        answer = {"op": "refused"}
    channel.send(answer)


def compile_text(text: str, functions: Iterable[str]) -> dict[str, bytes]:
    """Compile a main file and return the instructions of functions of it.

    Args:
        text: What bcc's dialect calls a program: each function of this file itself is one.
        functions: Their names.

    Raises:
        Exception: The text does not compile, or lacks one; the reasons are on standard error.
    """
    bcc = bcc_package.load()
    module = bcc.BPF(text=text, cflags=list(_FLAGS), allow_rlimit=False)
    try:
        return {name: module.dump_func(name.encode()) for name in functions}
    finally:
        module.cleanup()


def compile_lines(text: str) -> tuple[bytes, list[Entry]]:
    """Compile a record program's main file; return instructions and the line that each came from.

    They are those of `compile_text` but for the choice of registers and, in places, their order.

    Raises:
        Exception: The text does not compile, or this bcc has no line table to give.
    """
    bcc = bcc_package.load()
    output = os.dup(1)
    with Path(_MODULE_NAME).open("w+b") as printed:
        os.dup2(printed.fileno(), 1)
        try:
            bcc.BPF(text=text, cflags=list(_FLAGS), allow_rlimit=False, debug=PRINT_MODULE)
            flush_output(bcc)
        finally:
            os.dup2(output, 1)
            os.close(output)
        printed.seek(0)
        return read_lines(object_of(bcc, printed.read()), FUNCTION, PROGRAM_FILE)
