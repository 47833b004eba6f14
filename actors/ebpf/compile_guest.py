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

HEADERS: Final = Path(__file__).resolve().parent / "headers"
"""The few headers that bcc's own include: ours, in place of the kernel's."""
_FLAGS: Final = (
    "-Werror=implicit-function-declaration",
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
    "-Werror=return-type",
)
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
    try:
        instructions = compile_text(request["main"], request["functions"])
        answer: dict[str, Any] = {"op": "compiled", "instructions": instructions}
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
