"""C and C++ in the jail, with the clang and the wasm-ld inside the ziglang package.

They are called directly, without zig's build cache. Kinds:

- ``program``: with a ``main``, a WASI command; without, its functions are exported
  (of C++, those that are ``extern "C"``);
- ``record``: freestanding, for wasm64, exports what it is told to.

Function names are kept, so that a trap can name the function.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from runvisor.actors.wasm.compilers.guest import MODULE, Failed, Recipe, run
from runvisor.actors.wasm.objects import NotAnObject, Symbols, read_symbols
from runvisor.policies.permissions import KiB, MiB

LIBC_FILES: Final = ("crt1-command.o", "crt1-reactor.o", "libc.a", "libzigc.a", "libcompiler_rt.a")
"""What a program needs of the C library."""
LIBCXX_FILES: Final = ("libc++.a", "libc++abi.a")
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
_CPP: Final = (
    "-std=gnu++20",
    "-nostdinc++",
    "-fno-exceptions",
    "-D_LIBCPP_ABI_VERSION=1",
    "-D_LIBCPP_ABI_NAMESPACE=__1",
    "-D_LIBCPP_HAS_THREADS=0",
    "-D_LIBCPP_HAS_MONOTONIC_CLOCK",
    "-D_LIBCPP_HAS_TERMINAL",
    "-D_LIBCPP_HAS_MUSL_LIBC=1",
    "-D_LIBCXXABI_DISABLE_VISIBILITY_ANNOTATIONS",
    "-D_LIBCPP_DISABLE_VISIBILITY_ANNOTATIONS",
    "-D_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS=0",
    "-D_LIBCPP_HAS_FILESYSTEM=0",
    "-D_LIBCPP_HAS_RANDOM_DEVICE",
    "-D_LIBCPP_HAS_LOCALIZATION",
    "-D_LIBCPP_HAS_UNICODE",
    "-D_LIBCPP_HAS_WIDE_CHARACTERS",
    "-D_LIBCPP_HAS_NO_STD_MODULES",
    "-D_LIBCPP_PSTL_BACKEND_SERIAL",
    "-D_LIBCPP_HARDENING_MODE=_LIBCPP_HARDENING_MODE_FAST",
    "-D_LIBCPP_ASSERTION_SEMANTIC_DEFAULT=_LIBCPP_ASSERTION_SEMANTIC_QUICK_ENFORCE",
)
"""As zig configures the library that it builds, but with bounds checks in what a program inlines."""
_LINK: Final = ("--strip-debug", "--stack-first", "--build-id=none", "--error-limit=20")
_STACK_BYTES: Final = {"program": 8 * MiB, "functions": 1 * MiB, "record": 256 * KiB}
"""Of the memory, for locals whose address is taken; native programs are used to 8 MiB."""


def prepare(options: dict[str, Any]) -> Recipe:
    """Return the recipe for ``options["language"]``; the other options are folders."""
    ziglang = Path(options["ziglang"])
    if options["language"] == "c-record":
        return lambda source, exports: _compile_record(ziglang, source, exports)
    libc = [str(Path(options["libc"], name)) for name in LIBC_FILES]
    libcxx = [str(Path(options["libcxx"], name)) for name in LIBCXX_FILES] if options["language"] == "cpp" else []
    return lambda source, _: _compile_program(ziglang, source, libc, libcxx)


def _compile_record(ziglang: Path, source: bytes, exports: Sequence[str]) -> None:
    Path("program.c").write_bytes(source)
    zig = str(ziglang / "zig")
    options = (f"--target={_TARGETS['record']}", *_OPTIONS)
    run([zig, "clang", *options, "-c", "program.c", "-o", "program.o"], "program.c")
    _link(zig, "record", exports, ["--no-entry", "-mwasm64", "program.o"], "program.c")


def _compile_program(ziglang: Path, source: bytes, libc: Sequence[str], libcxx: Sequence[str]) -> None:
    name = "program.cpp" if libcxx else "program.c"
    Path(name).write_bytes(source)
    zig, lib = str(ziglang / "zig"), ziglang / "lib"
    options = [f"--target={_TARGETS['program']}", *_OPTIONS, *_EMULATED]
    if libcxx:
        options += [*_CPP, f"-isystem{lib / 'libcxx/include'}", f"-isystem{lib / 'libcxxabi/include'}"]
    options += [f"-isystem{lib / 'include'}", *(f"-isystem{lib / 'libc/include' / name}" for name in _INCLUDES)]
    run([zig, "clang", *options, "-c", name, "-o", "program.o"], name)
    symbols = _symbols(name)
    command, reactor, *libraries = libc
    if not _MAINS.isdisjoint(symbols.functions):
        _link(zig, "program", (), ["--entry=_start", command, "program.o", *libcxx, *libraries], name)
        return
    exports = [function for function in symbols.functions if not (libcxx and function.startswith("_Z"))]
    if libcxx and not exports:
        raise Failed(f'{name}:1:1: error: there is neither a main nor an extern "C" function to call')
    inputs = ["--no-entry", "program.o"]
    if symbols.undefined:
        inputs = ["--entry=_initialize", reactor, "program.o", *libcxx, *libraries]
    _link(zig, "functions", exports, inputs, name)


def _symbols(name: str) -> Symbols:
    try:
        return read_symbols(Path("program.o").read_bytes())
    except NotAnObject as error:
        raise Failed(f"{name}:1:1: error: the compiler made no object file: {error}") from None


def _link(zig: str, kind: str, exports: Sequence[str], inputs: Sequence[str], name: str) -> None:
    stack = f"-zstack-size={_STACK_BYTES[kind]}"
    run([zig, "wasm-ld", *_LINK, stack, *(f"--export={name}" for name in exports), *inputs, f"-o{MODULE}"], name)
