"""The ziglang package: a C, C++ and Zig compiler in a wheel, and the libraries that come with it as sources."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from runvisor.actors.wasm.compilers.c_recipe import LIBC_FILES, LIBCXX_FILES
from runvisor.actors.wasm.compilers.sysroot import Sysroot, run_tool
from runvisor.actors.wasm.compilers.toolchain import Lack
from runvisor.policies.errors import ConfigError, SpawnFailed

REMEDY: Final = "pip install 'runvisor[compilers]'"
_RECIPE: Final = "2"
"""Raise it when the files must be built anew."""
_COMMAND: Final = '#include <stdio.h>\nint main(void) { return printf("%s", "") < 0; }\n'
_REACTOR: Final = "int f(void) { return 1; }\n"
_CPP: Final = '#include <string>\nint main(int count, char **) { return std::string("a", count).empty(); }\n'
_ZIG: Final = """const std = @import("std");
pub fn main(init: std.process.Init) !void {
    var buffer: [64]u8 = undefined;
    var writer = std.Io.File.stdout().writer(init.io, &buffer);
    const parsed = try std.json.parseFromSlice(std.json.Value, init.gpa, "{}", .{});
    try std.json.Stringify.value(parsed.value, .{}, &writer.interface);
    try writer.interface.flush();
}
"""


def find() -> Path | None:
    """Return the folder of the ziglang package, or None where it is not installed."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    return folder if (folder / "zig").exists() else None


def lack() -> Lack | None:
    """Return what is missing, or None."""
    return None if find() else Lack("the compiler in the package ziglang, which is not installed", REMEDY)


def folder() -> Path:
    """Return the folder of the ziglang package.

    Raises:
        ConfigError: It is not installed; says how to install it.
    """
    found = find()
    if found is None:
        raise ConfigError("the package ziglang is not installed", "wasm", REMEDY)
    return found


def version() -> str:
    """Return the package's version, without running zig."""
    from importlib.metadata import version

    return version("ziglang")


def _inputs(*texts: str) -> Sequence[str]:
    folder()
    return (_RECIPE, version(), *texts)


def _linked(work: Path, compiler: str, source: str, text: str, options: Sequence[str], title: str) -> dict[str, Path]:
    """Have zig build its libraries and say where they lie, by its own linker command line."""
    (work / source).write_text(text)
    cache = str(work / "cache")
    environment = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache, "ZIG_VERBOSE_LINK": "1"}
    command = [str(folder() / "zig"), compiler, "--target=wasm32-wasi", "-O2", "-s", *options, source, "-oprogram.wasm"]
    _, said = run_tool(command, work, environment, title)
    return {Path(word).name: work / word for word in said.split() if word.endswith((".a", ".o"))}


def _chosen(found: Mapping[str, Path], names: Sequence[str]) -> dict[str, Path]:
    missing = [name for name in names if name not in found]
    if missing:
        raise SpawnFailed(f"this ziglang builds no {', '.join(missing)}", "zig", "install the version in the lock file")
    return {name: found[name] for name in names}


def _build_libc(work: Path) -> Mapping[str, Path]:
    found = _linked(work, "cc", "command.c", _COMMAND, (), LIBC.title)
    found |= _linked(work, "cc", "reactor.c", _REACTOR, ("-mexec-model=reactor",), LIBC.title)
    return _chosen(found, LIBC_FILES)


def _build_libcxx(work: Path) -> Mapping[str, Path]:
    return _chosen(_linked(work, "c++", "program.cpp", _CPP, ("-fno-exceptions",), LIBCXX.title), LIBCXX_FILES)


def _build_zir(work: Path) -> Mapping[str, Path]:
    """Let zig parse its standard library; what it keeps of that is found by each later compile."""
    (work / "program.zig").write_text(_ZIG)
    options = ("-target", "wasm32-wasi", "-OReleaseSafe", "-fno-compiler-rt", "-fno-ubsan-rt", "-fno-emit-bin")
    caches = ("--cache-dir", str(work / "local"), "--global-cache-dir", str(work / "global"))
    run_tool([folder() / "zig", "build-exe", *options, *caches, "program.zig"], work, {}, ZIR.title)
    shutil.rmtree(work / "local", ignore_errors=True)
    kept = work / "global" / "z"
    return {f"z/{path.name}": path for path in kept.iterdir() if path.is_file()}


LIBC: Final = Sysroot("zig-libc", "the C library for wasm", 45, lambda: _inputs(_COMMAND, _REACTOR), _build_libc)
LIBCXX: Final = Sysroot("zig-libcxx", "the C++ library for wasm", 75, lambda: _inputs(_CPP), _build_libcxx)
ZIR: Final = Sysroot("zig-std", "Zig's standard library, parsed", 8, lambda: _inputs(_ZIG), _build_zir)
