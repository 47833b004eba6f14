"""TypeScript on V8: compiled in jailed children of its own, errors told in the user's lines."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from runvisor.actors.jail.child import Child
from runvisor.actors.jail.spec import JailSpec
from runvisor.actors.jail.zygote import Zygote
from runvisor.actors.v8.source_map import SourceMap
from runvisor.policies import errors
from runvisor.policies.permissions import GiB, MiB

COMPILE_TIMEOUT_S: Final = 20.0
"""How long one compile may take; then its process is killed."""
_MEMORY_BYTES: Final = GiB
_MAX_KEPT_BYTES: Final = 32 * MiB
_MAX_CODE_BYTES: Final = 32 * MiB
_PLACE: Final = re.compile(r"task\.js:(\d+):(\d+)")


@dataclass(frozen=True, slots=True)
class Compiled:
    """JavaScript, and where it came from."""

    code: str
    mappings: str

    def told(self, error: errors.RunvisorError) -> errors.RunvisorError:
        """Return an error of the JavaScript with its places in the TypeScript."""
        try:
            source = SourceMap(self.mappings)
        except ValueError:  # from a compiler that a source has taken over: the error stays as it is
            return error

        def place(line: str, column: str) -> str:
            original = source.original(int(line), int(column))
            return f"{original[0]}:{original[1]}" if original else f"{line}:{column}"

        where = error.where
        if re.fullmatch(r"\d+:\d+", where):
            where = place(*where.split(":"))
        details = dict(error.details)
        if isinstance(details.get("traceback"), str):
            details["traceback"] = _PLACE.sub(
                lambda match: f"task.ts:{place(match[1], match[2])}", details["traceback"]
            )
        return type(error)(error.what, where, error.remedy, details)


class TypeScriptCompiler:
    """Compiles TypeScript, each source once per principal.

    Starts nothing until the first compile. Types are erased, not checked.

    Args:
        max_compilers: Compiler processes kept at once, one for each of the latest principals.
    """

    def __init__(self, max_compilers: int = 4) -> None:
        self._max_compilers = max_compilers
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None
        self._children: OrderedDict[str, _Compiler] = OrderedDict()
        self._kept: OrderedDict[tuple[str, bytes], Compiled] = OrderedDict()
        self._kept_bytes = 0
        self._closed = False

    def compile(self, source: str, principal: str) -> Compiled:
        """Return the JavaScript of a TypeScript text.

        Args:
            source: One file.
            principal: Whose it is; no compiler process serves two.

        Raises:
            GuestSyntaxError: It does not parse; ``where`` is ``line:column``.
            LimitExceeded: Compiling it took too much time or memory.
            WorkerError: No compiler process can be made.
        """
        key = (principal, hashlib.sha256(source.encode(errors="surrogatepass")).digest())
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
        with self._compiler(principal) as compiler:
            reply = compiler.ask(source)
        code, mappings = reply.get("code"), reply.get("mappings")
        if not isinstance(code, str) or not isinstance(mappings, str) or len(code) + len(mappings) > _MAX_CODE_BYTES:
            what = str(reply.get("what", "the compiler gave no code"))[:2000]
            raise errors.GuestSyntaxError(f"SyntaxError: {what}", str(reply.get("where", ""))[:40])
        compiled = Compiled(code, mappings)
        self._keep(key, compiled)
        return compiled

    def close(self) -> None:
        """End every process it made; closing twice is fine."""
        with self._lock:
            self._closed = True
            children = list(self._children.values())
            self._children.clear()
            zygote, self._zygote = self._zygote, None
        for compiler in children:
            compiler.dismiss()
        if zygote is not None:
            zygote.close()

    @contextlib.contextmanager
    def _compiler(self, principal: str) -> Iterator[_Compiler]:
        """Lend the principal's compiler; one that failed is not used again."""
        with self._lock:
            compiler = self._children.get(principal) or _Compiler()
            self._children[principal] = compiler
            self._children.move_to_end(principal)
            surplus = [self._children.popitem(last=False)[1] for _ in range(len(self._children) - self._max_compilers)]
        for old in surplus:
            old.dismiss()
        with compiler.lock:
            is_sound = False
            try:
                if compiler.child is None:
                    compiler.child = self._spawn()
                yield compiler
                is_sound = True
            finally:
                if not is_sound or compiler.is_dismissed:
                    compiler.end()

    def _spawn(self) -> Child:
        with self._lock:
            if self._closed:
                raise errors.SpawnFailed("the compiler is closed", "typescript")
            if self._zygote is not None and not self._zygote.alive:
                self._zygote.close()
                self._zygote = None
            if self._zygote is None:
                zygote = Zygote(JailSpec("typescript", "runvisor.actors.v8.compiler_guest"))
                zygote.start()
                self._zygote = zygote
            zygote = self._zygote
        return zygote.spawn(memory_bytes=_MEMORY_BYTES)

    def _keep(self, key: tuple[str, bytes], compiled: Compiled) -> None:
        with self._lock:
            if key not in self._kept:
                self._kept_bytes += len(compiled.code) + len(compiled.mappings)
            self._kept[key] = compiled
            while self._kept_bytes > _MAX_KEPT_BYTES:
                _, old = self._kept.popitem(last=False)
                self._kept_bytes -= len(old.code) + len(old.mappings)


class _Compiler:
    """One principal's compiler process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.child: Child | None = None
        self.is_dismissed = False

    def ask(self, source: str) -> dict[str, Any]:
        assert self.child is not None
        channel = self.child.channel
        channel.settimeout(COMPILE_TIMEOUT_S)
        try:
            channel.send({"op": "compile", "code": source})
            reply = channel.receive()
        except TimeoutError:
            raise errors.TimeLimitExceeded(
                f"compiling the TypeScript took longer than {COMPILE_TIMEOUT_S} s", "compile", "compile it beforehand"
            ) from None
        except (OSError, errors.ProtocolError):
            reply = None
        if reply is None:
            end = self.child.exit()
            if end is not None and end.oom_killed:
                raise errors.MemoryLimitExceeded(
                    f"compiling the TypeScript took more than {_MEMORY_BYTES // MiB} MiB", "compile", "split it"
                )
            raise errors.GuestCrashed("the compiler died of this source", "compile")
        return reply

    def dismiss(self) -> None:
        """End the process as soon as it compiles nothing."""
        self.is_dismissed = True
        if self.lock.acquire(blocking=False):
            try:
                self.end()
            finally:
                self.lock.release()

    def end(self) -> None:
        """End the process; only for who holds the lock."""
        child, self.child = self.child, None
        if child is not None:
            child.close()
