"""The shooting range: runs attacks on a pool of their own and watches the host meanwhile."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from runvisor.actors.jail.child import Child
from runvisor.actors.jail.custody import Custody
from runvisor.actors.jail.runtime import JailedRuntime
from runvisor.actors.runtime import Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust
from tests.escapes.attack import Attack, ending_of
from tests.escapes.canaries import Canaries, Sibling

GRACE_S: Final = 1.0
"""How long after its deadline an execution may be over."""
_BURIAL_S: Final = 5.0
"""How long after its answer the last process of an execution may be gone."""
_AT_ONCE: Final = 3


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What an attack came to."""

    ending: str
    result: Result
    harm: list[str] = field(default_factory=list)
    """What must not have happened, one line each."""


class Range:
    """A runtime under attack, with the host's canaries around it.

    Args:
        runtime: A started runtime; stays the caller's.
        variant: Which of its variants.
        canaries: Watched after every attack.
        sibling: Alive for as long as the range; None where the language has none.

    Attributes:
        runtime: The runtime.
    """

    def __init__(self, runtime: JailedRuntime, variant: str, canaries: Canaries, sibling: Sibling | None) -> None:
        self.runtime = runtime
        self._variant = variant
        self._canaries = canaries
        self._sibling = sibling
        self._seen = threading.local()
        self._executor = ThreadPoolExecutor(_AT_ONCE)
        self._futures: dict[str, Future[Aftermath]] = {}
        take = runtime._custody

        @contextmanager
        def watched(*arguments: Any) -> Iterator[Custody]:
            with take(*arguments) as custody:
                if (before := getattr(self._seen, "remains", None)) is not None:
                    before.close()
                self._seen.remains = _Remains(custody.child)
                yield custody

        runtime._custody = watched  # type: ignore[method-assign]

    @property
    def layers(self) -> frozenset[str]:
        """What is in force around each execution here."""
        return self.runtime._zygote.layers

    def run(self, attack: Attack) -> Aftermath:
        """Run one attack and look at what it did."""
        environment = {**self._canaries.environment(), "SIBLING_PID": str(self._sibling.pid if self._sibling else 2)}
        asked = Permissions(env=environment, **attack.permissions)
        began = time.monotonic()
        result = self.execute(attack.code, attack.language, asked)
        took_s = time.monotonic() - began - result.usage.queue_s
        harm = self._canaries.touched()
        said = (repr(result.value), result.stdout, result.stderr, str(result.error), repr(result.artifacts))
        harm += [f"leaked the secret in the {place}" for place in self._canaries.leaked(*said)]
        if took_s > asked.timeout_s + GRACE_S:
            harm.append(f"took {took_s:.2f} s of {asked.timeout_s} s")
        harm += self._seen.remains.alive()
        if self._sibling is not None and not self._sibling.alive:
            harm.append("killed its sibling")
        after = self.execute("40 + 2", attack.language, Permissions())
        if after.value != 42:
            harm.append(f"the next execution ended with {after.error or after.value!r}")
        return Aftermath(ending_of(result), result, harm)

    def expect_all(self, attacks: list[Attack]) -> None:
        """Begin with these attacks, a few at once; `aftermath` waits for one of them."""
        for attack in attacks:
            if not attack.is_foreign:
                self._futures[attack.name] = self._executor.submit(self.run, attack)

    def aftermath(self, attack: Attack) -> Aftermath:
        """Return what an attack came to."""
        return self._futures[attack.name].result()

    def close(self) -> None:
        """Start no more attacks and wait for those that run."""
        self._executor.shutdown(cancel_futures=True)

    def execute(self, code: str, language: str, permissions: Permissions) -> Result:
        """Run code as an untrusted task; the port of a listener on the host is in /in/port, where there is one."""
        # JavaScript has no way to read files.
        shown = language == "python" and "mount namespace, read-only root" in self.layers
        files = {"port": str(self._canaries.port).encode()} if shown else {}
        task = Task(code, language, None, permissions, Trust.UNTRUSTED, files=files)
        return self.runtime.execute(task, self._variant, Grant("attacker", Trust.UNTRUSTED, permissions), Watch())


class _Remains:
    """Finds what is left of a child that was lent.

    Its pid namespace tells its processes from all others; holding it open keeps
    the number of the namespace from being given to another one meanwhile. Where
    it has none of its own, it leads a session (setsid(2)): nobody can fork.
    """

    def __init__(self, child: Child) -> None:
        self._namespace = os.open(f"/proc/{child.pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._has_own_namespace = "pid namespace" in child.layers
        self._pid = child.pid
        self._pidfd = os.dup(child.pidfd)
        self._fds: tuple[int, ...] = (self._namespace, self._pidfd)

    def alive(self) -> list[str]:
        """Name what outlived the answer, after a moment's grace."""
        deadline = time.monotonic() + _BURIAL_S
        ended = select.poll()  # select(2) takes no descriptor beyond 1023
        ended.register(self._pidfd, select.POLLIN)
        ended.poll(_BURIAL_S * 1000)
        while (left := self._members()) and time.monotonic() < deadline:
            time.sleep(0.005)  # dead, and not yet reaped
        self.close()
        return [f"processes live on: {', '.join(left)}"] if left else []

    def close(self) -> None:
        """Give back both descriptors; closing twice is fine."""
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def _members(self) -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self._is_member(entry):
                        found.append(entry.name)
        return found

    def _is_member(self, process: Path) -> bool:
        if self._has_own_namespace:
            return (process / "ns/pid").stat().st_ino == os.fstat(self._namespace).st_ino
        return os.getsid(int(process.name)) == self._pid
