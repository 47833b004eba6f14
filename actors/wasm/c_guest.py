"""The C compiler's child: one translation unit to one wasm module, in a jail of its own.

It calls the clang and the wasm-ld inside the ziglang package directly, without
zig's build cache. Nothing but its scratch is writable, nothing but the system's
and the interpreter's folders is readable, so an ``#include`` or ``.incbin`` of
anything else finds nothing.

One request, ``compile`` (source, kind, exports, libc), is answered by ``wasm``,
by ``needs_libc``, or by ``log`` with the compiler's messages. Kinds:

- ``program``: with a ``main``, a WASI command; without, its functions are exported;
- ``record``: freestanding, for wasm64, exports what it is told to.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from runvisor.actors.channel.frames import FrameSocket, Message
from runvisor.actors.wasm.objects import NotAnObject, read_symbols
from runvisor.policies.permissions import KiB, MiB

SOURCE: Final = "program.c"
LIBC_FILES: Final = ("crt1-command.o", "crt1-reactor.o", "libc.a", "libzigc.a", "libcompiler_rt.a")
"""What a program needs of the C library; made by `runvisor.actors.wasm.sysroot`."""
_TARGETS: Final = {"program": "wasm32-wasip1", "record": "wasm64-unknown-unknown"}
_MAINS: Final = frozenset(("main", "__main_void", "__main_argc_argv", "__original_main"))
_OPTIONS: Final = (
    "--no-default-config",
    "-mcpu=lime1",
    "-O2",
    "-fno-color-diagnostics",
    "-ferror-limit=20",
    "-nostdinc",
)
_EMULATED: Final = tuple(f"-D_WASI_EMULATED_{name}" for name in ("PROCESS_CLOCKS", "SIGNAL", "MMAN", "GETPID"))
_INCLUDES: Final = ("wasm-wasi-musl", "generic-musl", "wasm32-wasi-any", "any-wasi-any")
_LINK: Final = ("--strip-debug", "--stack-first", "--build-id=none", "--error-limit=20")
_STACK_BYTES: Final = {"program": 8 * MiB, "functions": 1 * MiB, "record": 256 * KiB}
"""Of the memory, for locals whose address is taken; native programs are used to 8 MiB."""
_MAX_LOG_BYTES: Final = 32 * KiB


class _Failed(Exception):
    """A tool refused its input; holds what it said."""


def preload(options: dict[str, Any]) -> None:
    """Nothing: the tools are programs of their own."""
    del options


def prepare(options: dict[str, Any]) -> str:
    """Return the folder of the ziglang package."""
    return str(options["ziglang"])


def serve(channel: FrameSocket, prepared: str) -> None:
    """Answer one request, then leave."""
    request = channel.receive()
    if request is None:
        return
    channel.send({"op": "started"})
    try:
        reply = _compile(Path(prepared), request)
    except _Failed as failed:
        reply = {"log": str(failed)}
    channel.send(reply)


def _compile(ziglang: Path, request: Message) -> Message:
    kind: str = request["kind"]
    libc: Mapping[str, bytes] | None = request["libc"]
    Path(SOURCE).write_bytes(request["source"])
    options = [f"--target={_TARGETS[kind]}", *_OPTIONS]
    if kind == "program":
        lib = ziglang / "lib"
        options += _EMULATED
        options += [f"-isystem{lib / 'include'}", *(f"-isystem{lib / 'libc/include' / name}" for name in _INCLUDES)]
    zig = str(ziglang / "zig")
    _run([zig, "clang", *options, "-c", SOURCE, "-o", "program.o"])
    exports: Sequence[str] = request["exports"]
    inputs: list[str] = ["program.o"]
    entry = "--no-entry"
    if kind == "program":
        try:
            symbols = read_symbols(Path("program.o").read_bytes())
        except NotAnObject as error:
            raise _Failed(f"{SOURCE}: error: the compiler made no object file: {error}") from None
        has_main = not _MAINS.isdisjoint(symbols.functions)
        if not has_main:
            kind, exports = "functions", symbols.functions
        if has_main or symbols.undefined:
            if libc is None:
                return {"needs_libc": True}
            for name in LIBC_FILES:
                Path(name).write_bytes(libc[name])
            start, *libraries = LIBC_FILES[0 if has_main else 1], *LIBC_FILES[2:]
            inputs = [start, *inputs, *libraries]
            entry = "--entry=_start" if has_main else "--entry=_initialize"
    _run(
        [
            zig,
            "wasm-ld",
            *_LINK,
            *(["-mwasm64"] if kind == "record" else []),
            entry,
            f"-zstack-size={_STACK_BYTES[kind]}",
            *(f"--export={name}" for name in exports),
            *inputs,
            "-oprogram.wasm",
        ]
    )
    return {"wasm": Path("program.wasm").read_bytes()}


def _run(command: list[str]) -> None:
    """Run a tool; what it says goes to a file, because hostile source can make it say gigabytes."""
    with Path("log").open("w+b") as log:
        status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode
        if status == 0:
            return
        log.seek(0)
        said = log.read(_MAX_LOG_BYTES).decode(errors="replace")
    if status < 0:
        said += f"\n{SOURCE}: error: the compiler died of {signal.Signals(-status).name}"
    raise _Failed(said)
