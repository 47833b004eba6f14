"""Native code for wasm modules: made in a process that only compiles, kept on the host, mapped by engines.

An engine process where guest code has run never contributes native code to
anybody, and the host never looks into a module: each one is compiled by a new
jailed child, which is killed after it, within bounds of size, time and memory.
What a hostile module may make of its compiler is thus its own native code only,
which runs nowhere but in the jailed engines of those who run that same module.

Engines get the code as a sealed file without a name (memfd_create(2)): they share
its pages, and none of them can change it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from runvisor.actors.channel.frames import Message
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.conversation import Bounds, converse
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.agreement import MAX_MODULE_BYTES
from runvisor.actors.wasm.image import Image
from runvisor.actors.wasm.library import Api
from runvisor.actors.wasm.profiles import PROFILES
from runvisor.actors.wasm.replies import guest_error
from runvisor.policies.errors import (
    GuestCrashed,
    MemoryLimitExceeded,
    ProtocolError,
    RunvisorError,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import GiB, KiB, MiB

KIND: Final = "cwasm"
"""What the artifact cache knows native code by."""
_KEPT_BYTES: Final = 256 * MiB
_MAX_KEPT: Final = 256
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Artifacts(Protocol):
    """What is kept beyond the life of a process, by kind and key; whatever comes back has been verified."""

    def get(self, kind: str, key: bytes) -> bytes | None:
        """Return what was put there, or None."""
        ...

    def put(self, kind: str, key: bytes, data: bytes) -> None:
        """Keep something; may drop something else."""
        ...


@dataclass(frozen=True, slots=True)
class CompileBounds:
    """What one compile may take."""

    code_bytes: int
    timeout_s: float
    memory_bytes: int
    native_bytes: int


GUEST_BOUNDS: Final = CompileBounds(MAX_MODULE_BYTES, 30.0, 1 * GiB, 128 * MiB)
"""Of a module that somebody sent. Go's, which bring their runtime, take a core five seconds."""
IMAGE_BOUNDS: Final = CompileBounds(64 * MiB, 300.0, 3 * GiB, 240 * MiB)
"""Of an image of ours."""

LendCompiler = Callable[[], AbstractContextManager[Child]]
"""Lends a sealed engine process that nothing has run in, for one compile."""


class NativeCode:
    """The native code of modules, by content.

    Args:
        lend: Where compilers come from.
        artifacts: Where the code is kept for other processes; None keeps it in this one only.
        api: How the compilers use wasmtime.
    """

    def __init__(self, lend: LendCompiler, artifacts: Artifacts | None = None, api: Api = "c") -> None:
        self._api = api
        self._lend = lend
        self._artifacts = artifacts
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._bytes = 0
        self._making: dict[bytes, _Making] = {}

    @contextmanager
    def of(
        self,
        digest: bytes,
        code: bytes,
        profile: str,
        *,
        is_text: bool = False,
        is_component: bool = False,
        bounds: CompileBounds = GUEST_BOUNDS,
    ) -> Iterator[int]:
        """Give a descriptor of the native code of a module, made first if need be; valid in the block.

        Args:
            digest: Of all that says what the module is.
            code: A wasm binary, or WAT text.
            profile: Name of the profile to compile for.
            is_text: Whether it is WAT.
            is_component: Whether it is a component.
            bounds: What compiling may take.

        Raises:
            GuestError: It is no valid module.
            LimitExceeded: It is too large, or took too long or too much memory to compile.
            CapacityError: No compiler came free.
            WorkerError: No compiler process can be made.
        """
        key = hashlib.sha256(digest + f"{self._api} {PROFILES[profile].fingerprint()}".encode()).digest()
        fd = self._take(key)
        if fd is None:
            request: Message = {
                "op": "precompile",
                "code": code,
                "profile": profile,
                "is_text": is_text,
                "is_component": is_component,
            }
            fd = self._make(key, request, bounds)
        try:
            yield fd
        finally:
            os.close(fd)

    def of_image(self, image: Image) -> AbstractContextManager[int]:
        """Give a descriptor of the native code of an image; see `of`."""
        return self.of(image.digest, image.code, image.profile, is_component=image.is_component, bounds=IMAGE_BOUNDS)

    def close(self) -> None:
        """Let go of all that is kept; closing twice is fine."""
        with self._lock:
            kept, self._kept = self._kept, OrderedDict()
            self._bytes = 0
        for fd, _ in kept.values():
            os.close(fd)

    def _take(self, key: bytes) -> int | None:
        """Return a descriptor of the caller's own."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return os.dup(found[0])

    def _keep(self, key: bytes, native: bytes) -> int:
        fd = _sealed(native)
        with self._lock:
            self._kept[key] = (fd, len(native))
            self._bytes += len(native)
            while len(self._kept) > 1 and (len(self._kept) > _MAX_KEPT or self._bytes > _KEPT_BYTES):
                _, (old, size) = self._kept.popitem(last=False)
                self._bytes -= size
                os.close(old)
            return os.dup(fd)

    def _make(self, key: bytes, request: Message, bounds: CompileBounds) -> int:
        """Compile it, or have the one who compiles it already share what comes of it."""
        with self._lock:
            making = self._making.get(key)
            is_first = making is None
            if making is None:
                making = self._making[key] = _Making()
        if is_first:
            try:
                native = self._artifacts.get(KIND, key) if self._artifacts is not None else None
                if native is None:
                    native = self._compile(request, bounds)
                    if self._artifacts is not None:
                        self._artifacts.put(KIND, key, native)
                return self._keep(key, native)
            except RunvisorError as error:
                making.error = error
                raise
            finally:
                with self._lock:
                    del self._making[key]
                making.is_over.set()
        making.is_over.wait()  # its own bounds end it
        if making.error is not None:
            raise type(making.error)(*making.error.args)  # a new one: raising adds to an error's traceback
        fd = self._take(key)
        return self._make(key, request, bounds) if fd is None else fd

    def _compile(self, request: Message, bounds: CompileBounds) -> bytes:
        size = len(request["code"])
        if size > bounds.code_bytes:
            raise MemoryLimitExceeded(
                f"a module of {size} bytes is larger than {bounds.code_bytes}", "code", "strip it, or split it"
            )
        with self._lend() as child:
            child.limit_memory(bounds.memory_bytes, final=True)
            told = converse(child, request, Bounds(bounds.timeout_s, 64 * KiB, bounds.native_bytes), Watch())
        if told.end == "timeout":
            raise TimeLimitExceeded(
                f"the module took longer than {bounds.timeout_s:g} s to compile", "compile", "make it smaller"
            )
        if told.end == "reply too large":
            raise MemoryLimitExceeded(
                f"its native code is larger than {bounds.native_bytes // MiB} MiB", "compile", "make it smaller"
            )
        if told.end == "exit" and told.exit is not None and told.exit.oom_killed:
            raise MemoryLimitExceeded(
                f"compiling the module took more than {bounds.memory_bytes // MiB} MiB", "compile", "make it smaller"
            )
        native = (told.reply or {}).get("native")
        if isinstance(native, bytes):
            return native
        raise _refusal((told.reply or {}).get("error"), told.stderr)


class _Making:
    """A compile under way, for those who want the same."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.error: RunvisorError | None = None


def _refusal(error: object, said: bytes) -> RunvisorError:
    """Read why a compiler, which a hostile module may have taken over, made no code."""
    if error is not None:
        with contextlib.suppress(ProtocolError):
            return guest_error(error)
    return GuestCrashed("the wasm compiler broke off", "compile", said.decode(errors="replace")[-500:])


def _sealed(data: bytes) -> int:
    fd = os.memfd_create("cwasm", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd
