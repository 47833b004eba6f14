"""C to wasm: one jailed compiler process for each compile, and the modules it made, by content."""

from __future__ import annotations

import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, Literal

from runvisor.actors.channel.frames import Message
from runvisor.actors.instances import InstancePool
from runvisor.actors.jail.child import Child
from runvisor.actors.jail.conversation import Bounds, Transcript, converse
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.runtime import PoolSize, Watch
from runvisor.actors.wasm import sysroot
from runvisor.actors.wasm.c_guest import SOURCE
from runvisor.policies.errors import (
    GuestCrashed,
    GuestSyntaxError,
    MemoryLimitExceeded,
    RunvisorError,
    SpawnFailed,
    TimeLimitExceeded,
)
from runvisor.policies.permissions import GiB, KiB, MiB

Kind = Literal["program", "record"]

_GUEST: Final = "runvisor.actors.wasm.c_guest"
COMPILE_TIMEOUT_S: Final = 20.0
"""How long one compile may take; then its process is killed."""
_MEMORY_BYTES: Final = 1 * GiB
_SCRATCH_BYTES: Final = 128 * MiB
_REPLY_BYTES: Final = 33 * MiB
_MAX_ARTIFACTS: Final = 256
_MAX_ARTIFACT_BYTES: Final = 64 * MiB
_MAX_LOG: Final = 8 * KiB
_DIAGNOSTIC: Final = re.compile(r"^(?P<file>[^:\n]+):(?P<place>\d+:\d+): (?:fatal )?error: (?P<what>.*)$", re.MULTILINE)
_LINKER: Final = re.compile(r"^wasm-ld: error: (?:program\.o: )?(?P<what>.*)$", re.MULTILINE)


class CCompiler:
    """Compiles C, each source once.

    Starts nothing until the first compile. Modules are kept by the hash of all
    that goes into them; the same text gives anyone the same module.

    Args:
        size: ``maximum`` bounds the compiles at once.
    """

    def __init__(self, size: PoolSize | None = None) -> None:
        self._size = size or PoolSize(minimum=1, maximum=4)
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._children: InstancePool[Child] | None = None
        self._artifacts: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0
        self._closed = False

    def get(self, source: str, kind: Kind) -> bytes | None:
        """Return the module of a source that was compiled before, if it is still kept."""
        with self._lock:
            key = _key(source, kind)
            module = self._artifacts.get(key)
            if module is not None:
                self._artifacts.move_to_end(key)
            return module

    def compile(self, source: str, kind: Kind, exports: tuple[str, ...] = ()) -> bytes:
        """Return the wasm module of a C text.

        Args:
            source: One translation unit.
            kind: See `runvisor.actors.wasm.c_guest`.
            exports: Functions of a record harness to export.

        Raises:
            ConfigError: The compiler is not installed.
            GuestError: The text does not compile; ``where`` is ``line:column``.
            LimitExceeded: Compiling it took too much time or memory.
            CapacityError: Too many compiles are under way.
            WorkerError: No compiler process can be made, or the C library cannot be built.
        """
        module = self.get(source, kind)
        if module is not None:
            return module
        sysroot.require_ziglang()
        libc = sysroot.libc(may_build=False) if kind == "program" else None
        reply = self._ask(source, kind, exports, libc)
        if reply.get("needs_libc"):
            reply = self._ask(source, kind, exports, sysroot.libc())
        made = reply.get("wasm")
        if not isinstance(made, bytes):
            raise explain(str(reply.get("log", "")))
        self._keep(_key(source, kind), made)
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

    def _ask(self, source: str, kind: Kind, exports: tuple[str, ...], libc: Mapping[str, bytes] | None) -> Message:
        request = {
            "op": "compile",
            "source": source.encode(errors="surrogatepass"),
            "kind": kind,
            "exports": list(exports),
            "libc": None if libc is None else dict(libc),
        }
        with self._pool().lend() as child:
            transcript = converse(child, request, Bounds(COMPILE_TIMEOUT_S, 64 * KiB, _REPLY_BYTES), Watch())
        if transcript.end == "reply" and transcript.reply is not None:
            return transcript.reply
        raise _unfinished(transcript)

    def _pool(self) -> InstancePool[Child]:
        with self._lock:
            if self._closed:
                raise SpawnFailed("the compiler is closed", "wasm")
            if self._children is None:
                options = {"ziglang": str(sysroot.require_ziglang())}
                spec = JailSpec(
                    "c-compiler", _GUEST, options=options, syscalls="compiler", scratch_bytes=_SCRATCH_BYTES
                )
                zygote = Zygote(spec)
                zygote.start()
                children = InstancePool(lambda: zygote.spawn(memory_bytes=_MEMORY_BYTES), Child.close, self._size)
                try:
                    children.start()
                except BaseException:
                    zygote.close()
                    raise
                self._zygote, self._children = zygote, children
            return self._children

    def _keep(self, key: bytes, module: bytes) -> None:
        with self._lock:
            self._bytes += len(module) - len(self._artifacts.pop(key, b""))
            self._artifacts[key] = module
            while len(self._artifacts) > 1 and (
                len(self._artifacts) > _MAX_ARTIFACTS or self._bytes > _MAX_ARTIFACT_BYTES
            ):
                self._bytes -= len(self._artifacts.popitem(last=False)[1])


def explain(log: str) -> GuestSyntaxError:
    """Make an error of what clang or wasm-ld says: its first message, and the whole text in the details.

    Example:
        >>> error = explain("program.c:2:9: error: expected expression")
        >>> error.what, error.where
        ('expected expression', '2:9')
    """
    log = log[:_MAX_LOG]
    details = {"log": log}
    if match := _DIAGNOSTIC.search(log):
        where = match["place"] if match["file"] == SOURCE else f"{match['file']}:{match['place']}"
        return GuestSyntaxError(match["what"], where, "", details)
    if match := _LINKER.search(log):
        return GuestSyntaxError(match["what"], "link", "", details)
    lines = log.strip().splitlines()
    return GuestSyntaxError(lines[-1] if lines else "it does not compile", "", "", details)


def _unfinished(transcript: Transcript) -> RunvisorError:
    """Say why a compile gave no answer."""
    if transcript.end == "timeout":
        return TimeLimitExceeded(
            f"the C text took longer than {COMPILE_TIMEOUT_S:g} s to compile", "compile", "make it smaller"
        )
    if transcript.end == "exit" and transcript.exit is not None and transcript.exit.oom_killed:
        return MemoryLimitExceeded(
            f"compiling the C text took more than {_MEMORY_BYTES // MiB} MiB", "compile", "make it smaller"
        )
    if transcript.end == "reply too large":
        return MemoryLimitExceeded("the compiled module is too large", "compile", "make it smaller")
    return GuestCrashed("the compiler broke off", "compile", transcript.stderr.decode(errors="replace")[-500:])


def _key(source: str, kind: Kind) -> bytes:
    return hashlib.sha256(f"{kind}\0{source}".encode(errors="surrogatepass")).digest()
