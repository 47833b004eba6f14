"""All compilers of a process, and the modules they made, kept by all that went into them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from runvisor.actors.artifacts import ArtifactCache
from runvisor.actors.wasm.compilers import toolchain
from runvisor.actors.wasm.compilers.c import CPP, RECORD_C, C
from runvisor.actors.wasm.compilers.compiler import Compiler
from runvisor.actors.wasm.compilers.go import GO
from runvisor.actors.wasm.compilers.rust import RUST
from runvisor.actors.wasm.compilers.toolchain import Lack, Toolchain
from runvisor.actors.wasm.compilers.zig import ZIG
from runvisor.policies.language.names import DISPLAY
from runvisor.policies.permissions import MiB

TOOLCHAINS: Final[tuple[Toolchain, ...]] = (C, CPP, ZIG, GO, RUST)
LANGUAGES: Final = tuple(toolchain.language for toolchain in TOOLCHAINS)
"""What a task can be written in."""
_KIND: Final = "wasm"
_MAX_KEPT: Final = 256
_MAX_KEPT_BYTES: Final = 64 * MiB


class Compilers:
    """Compiles each source once, as long as its module is kept: in memory, and on disk if there is a cache.

    The same text gives anyone the same module.

    Args:
        cache: Where modules are kept for other processes and later ones; None keeps them in this one only.
        toolchains: The languages.
    """

    def __init__(
        self, cache: ArtifactCache | None = None, toolchains: Iterable[Toolchain] = (*TOOLCHAINS, RECORD_C)
    ) -> None:
        self._cache = cache
        self._compilers = {toolchain.language: Compiler(toolchain) for toolchain in toolchains}
        self._lock = threading.Lock()
        self._identities: dict[str, bytes] = {}
        self._kept: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def get(self, language: str, source: str) -> bytes | None:
        """Return the module of a source that was compiled before by these tools, if it is still kept.

        Raises:
            ConfigError: The toolchain is not installed.
        """
        key = self._key(language, source)
        with self._lock:
            module = self._kept.get(key)
            if module is not None:
                self._kept.move_to_end(key)
                return module
        if self._cache is not None:
            module = self._cache.get(_KIND, key)
            if module is not None:
                self._keep(key, module)
        return module

    def compile(self, language: str, source: str, exports: tuple[str, ...] = ()) -> bytes:
        """Return the module of a source; see `Compiler.compile`."""
        module = self.get(language, source)
        if module is None:
            module = self._compilers[language].compile(source, exports)
            key = self._key(language, source)
            self._keep(key, module)
            if self._cache is not None:
                self._cache.put(_KIND, key, module)
        return module

    def missing(self) -> tuple[tuple[str, Lack], ...]:
        """Return the languages that cannot be compiled here, each with what is missing."""
        lacks = ((language, compiler.toolchain.probe()) for language, compiler in self._compilers.items())
        return tuple((language, lack) for language, lack in lacks if lack is not None)

    def close(self) -> None:
        """End every process they made; closing twice is fine."""
        for compiler in self._compilers.values():
            compiler.close()

    def _key(self, language: str, source: str) -> bytes:
        return hashlib.sha256(self._identity(language) + source.encode(errors="surrogatepass")).digest()

    def _identity(self, language: str) -> bytes:
        """Return a hash of all that goes into a module beside its source; found out once."""
        found = self._identities.get(language)
        if found is None:
            compiler = self._compilers[language].toolchain
            toolchain.require(compiler, DISPLAY[language])
            inputs = json.dumps([language, compiler.identity(), _recipes()])
            found = self._identities[language] = hashlib.sha256(inputs.encode()).digest()
        return found

    def _keep(self, key: bytes, module: bytes) -> None:
        with self._lock:
            self._bytes += len(module) - len(self._kept.pop(key, b""))
            self._kept[key] = module
            while len(self._kept) > 1 and (len(self._kept) > _MAX_KEPT or self._bytes > _MAX_KEPT_BYTES):
                self._bytes -= len(self._kept.popitem(last=False)[1])


@lru_cache(maxsize=1)
def _recipes() -> str:
    """Return a hash of this package: flags and steps are in it, so nothing compiled by others is taken for ours."""
    texts = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(b"".join(texts)).hexdigest()
