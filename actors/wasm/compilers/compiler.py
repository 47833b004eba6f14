"""One jailed, killable process for each compile."""

from __future__ import annotations

import threading
from typing import Final

from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.conversation import Bounds, Transcript, converse
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm.compilers.toolchain import CompileBounds, Toolchain
from runvisor.policies.errors import (
    GuestCrashed,
    MemoryLimitExceeded,
    RunvisorError,
    SpawnFailed,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import KiB, MiB

_GUEST: Final = "runvisor.actors.wasm.compilers.guest"
_REPLY_BYTES: Final = 33 * MiB
_SMALLER: Final = "make it smaller"


class Compiler:
    """Compiles one language, each time in a fresh child that sees nothing of the host.

    Starts nothing until the first compile.

    Args:
        toolchain: Of which language.
        size: ``maximum`` bounds the compiles at once.
    """

    def __init__(self, toolchain: Toolchain, size: PoolSize | None = None) -> None:
        self.toolchain = toolchain
        self._size = size or PoolSize(minimum=1, maximum=4)
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._children: InstancePool[Child] | None = None
        self._closed = False

    def compile(self, source: str, exports: tuple[str, ...] = ()) -> bytes:
        """Return the wasm module of a source text.

        Args:
            source: One file.
            exports: Functions of a record harness to export.

        Raises:
            ConfigError: The toolchain is not installed.
            GuestError: The text does not compile; ``where`` is ``line:column``.
            LimitExceeded: Compiling it took too much time or memory.
            CapacityError: Too many compiles are under way.
            WorkerError: No compiler process can be made, or a library it needs cannot be built.
        """
        bounds = self.toolchain.bounds
        request = {"op": "compile", "source": source.encode(errors="surrogatepass"), "exports": list(exports)}
        with self._pool().lend() as child:
            transcript = converse(child, request, Bounds(bounds.timeout_s, 64 * KiB, _REPLY_BYTES), Watch())
        if transcript.end != "reply" or transcript.reply is None:
            raise _unfinished(transcript, bounds)
        made = transcript.reply.get("wasm")
        if not isinstance(made, bytes):
            raise self.toolchain.explain(str(transcript.reply.get("log", "")))
        return made

    def close(self) -> None:
        """End every process it made; closing twice is fine."""
        with self._lock:
            self._closed = True
            children, self._children = self._children, None
            zygote, self._zygote = self._zygote, None
        if children is not None:
            children.close()
        if zygote is not None:
            zygote.close()

    def _pool(self) -> InstancePool[Child]:
        with self._lock:
            if self._closed:
                raise SpawnFailed("the compiler is closed", "wasm")
            if self._children is None:
                place, bounds = self.toolchain.workplace(), self.toolchain.bounds
                spec = JailSpec(
                    f"{self.toolchain.language}-compiler",
                    _GUEST,
                    options={"recipe": place.recipe, **place.options},
                    readable=place.readable,
                    syscalls="compiler",
                    scratch_bytes=bounds.scratch_bytes,
                )
                zygote = Zygote(spec)
                zygote.start()
                children = InstancePool(lambda: zygote.spawn(memory_bytes=bounds.memory_bytes), Child.close, self._size)
                try:
                    children.start()
                except BaseException:
                    zygote.close()
                    raise
                self._zygote, self._children = zygote, children
            return self._children


def _unfinished(transcript: Transcript, bounds: CompileBounds) -> RunvisorError:
    """Say why a compile gave no answer."""
    if transcript.end == "timeout":
        return TimeLimitExceeded(f"compiling took longer than {bounds.timeout_s:g} s", "compile", _SMALLER)
    if transcript.end == "exit" and transcript.exit is not None and transcript.exit.oom_killed:
        return MemoryLimitExceeded(f"compiling took more than {bounds.memory_bytes // MiB} MiB", "compile", _SMALLER)
    if transcript.end == "reply too large":
        return MemoryLimitExceeded("the compiled module is too large", "compile", _SMALLER)
    return GuestCrashed("the compiler broke off", "compile", transcript.stderr.decode(errors="replace")[-500:])
