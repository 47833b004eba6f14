"""C, C++, and the C of record programs, through ziglang's clang."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from runvisor.actors.wasm.compilers import toolchain, ziglang
from runvisor.actors.wasm.compilers.toolchain import CompileBounds, Lack, Workplace
from runvisor.policies.errors import GuestSyntaxError
from runvisor.policies.records import LANGUAGE as RECORD

_MESSAGES: Final = (
    re.compile(r"^(?P<file>[^:\n]+):(?P<place>\d+:\d+): (?:fatal )?error: (?P<what>.*)$", re.MULTILINE),
    re.compile(r"^wasm-ld: error: (?:program\.o: )?(?P<what>.*)$", re.MULTILINE),
)


@dataclass(frozen=True, slots=True)
class ClangToolchain:
    """Implements `runvisor.actors.wasm.compilers.toolchain.Toolchain` for ``c``, ``cpp`` or ``c-record``."""

    language: str
    bounds: CompileBounds = field(default_factory=CompileBounds)

    def probe(self) -> Lack | None:
        """See `Toolchain.probe`."""
        return ziglang.lack()

    def identity(self) -> str:
        """See `Toolchain.identity`."""
        return f"ziglang {ziglang.version()}"

    def workplace(self) -> Workplace:
        """See `Toolchain.workplace`."""
        sysroots = {
            "c": {"libc": ziglang.LIBC},
            "cpp": {"libc": ziglang.LIBC, "libcxx": ziglang.LIBCXX},
            RECORD: {},
        }[self.language]
        folders = {name: str(sysroot.folder()) for name, sysroot in sysroots.items()}
        options: dict[str, Any] = {"language": self.language, "ziglang": str(ziglang.folder()), **folders}
        return Workplace("c_recipe", options, tuple(folders.values()))

    def explain(self, log: str) -> GuestSyntaxError:
        """See `Toolchain.explain`.

        Example:
            >>> error = C.explain("program.c:2:9: error: expected expression")
            >>> error.what, error.where
            ('expected expression', '2:9')
        """
        return toolchain.explain(log, "program.cpp" if self.language == "cpp" else "program.c", _MESSAGES)


C: Final = ClangToolchain("c")
CPP: Final = ClangToolchain("cpp", CompileBounds(timeout_s=40.0))
RECORD_C: Final = ClangToolchain(RECORD)
