"""Instructions that were compiled before, kept on disk: a restart does not pay for LLVM again."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runvisor.actors.artifacts import ArtifactCache
from runvisor.actors.ebpf import bcc_package, compile_guest
from runvisor.policies.values import pack, unpack

_KIND: Final = "ebpf"


class CodeCache:
    """What texts compiled to, by all that goes into it.

    What comes out is what an earlier process of this user put in; it is scanned like
    fresh output of the compiler.

    Args:
        artifacts: Where it lies; None keeps nothing.
    """

    def __init__(self, artifacts: ArtifactCache | None) -> None:
        self._artifacts = artifacts

    def get(self, main: str, body: str, functions: Sequence[str]) -> dict[str, bytes] | None:
        """Return the instructions of functions, or None."""
        found = None if self._artifacts is None else self._artifacts.get(_KIND, _key(main, body, functions))
        if found is None:
            return None
        codes = unpack(found)
        assert isinstance(codes, dict)  # verified: it is what `put` packed
        return {str(name): bytes(code) for name, code in codes.items()}

    def put(self, main: str, body: str, functions: Sequence[str], codes: dict[str, bytes]) -> None:
        """Keep what was compiled."""
        if self._artifacts is not None:
            self._artifacts.put(_KIND, _key(main, body, functions), pack(dict(codes)))


def _key(main: str, body: str, functions: Sequence[str]) -> bytes:
    parts = (_identity(), main.encode(), body.encode(errors="surrogatepass"), *map(str.encode, functions))
    return b"".join(hashlib.sha256(part).digest() for part in parts)


@functools.cache
def _identity() -> bytes:
    """Return a hash of all that goes into instructions beside their text.

    The harness is part of the text. bcc passes the kernel's version on to the compiler;
    its own package and LLVM's come and go together with the files of the former.
    """
    kernel = os.uname()
    found = [f"{kernel.sysname} {kernel.release} {kernel.version} {kernel.machine} {bcc_package.version()}".encode()]
    package = bcc_package.folder()
    for path in sorted(package.glob("*.py")) if package else ():
        status = path.stat()
        found.append(f"{path} {status.st_size} {status.st_mtime_ns}".encode())
    for path in (Path(compile_guest.__file__), *sorted(compile_guest.HEADERS.rglob("*"))):
        if path.is_file():
            found += [str(path.name).encode(), path.read_bytes()]
    return b"".join(hashlib.sha256(part).digest() for part in found)
