"""Counting one execution, or the cells of a session, and saying so in their results."""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from runvisor.actors.witness.accounts import Account, Accounts, NotCounted, has_ended
from runvisor.policies.result import Result
from runvisor.policies.witness import KernelUsage

if TYPE_CHECKING:
    from runvisor.actors.jail.seccomp import FilterKind
    from runvisor.policies.witness import Words

_END_S: Final = 2.0
COUNTED: Final = "kernel"


class Watched(Protocol):
    """What is to be known of a sandbox child."""

    pidfd: int
    identity: int | None
    """From `runvisor.actors.jail.unified.identity_of`."""
    filter: FilterKind | None
    """What answers for the kernel to some of its system calls."""


class Witnessing:
    """What a runtime knows of the witness: its accounts, or why there are none.

    Args:
        accounts: None where nothing is counted.
        reason: Why; empty if nobody asked.
    """

    def __init__(self, accounts: Accounts | None = None, reason: str = "") -> None:
        self.accounts = accounts
        self.reason = reason

    @classmethod
    def connect(cls, path: str, wanted: int) -> Self:
        """Ask the witness for accounts; without them, each result will say why.

        Args:
            path: Its socket.
            wanted: How many.
        """
        try:
            return cls(Accounts.connect(path, wanted))
        except NotCounted as error:
            return cls(None, str(error))

    @property
    def wanted(self) -> bool:
        """Whether the operator asked for it: then each result says what became of it."""
        return self.accounts is not None or bool(self.reason)

    @property
    def ended(self) -> str:
        """Why nothing is counted any more, or was ever; empty while it is."""
        return self.reason if self.accounts is None else self.accounts.ended

    def count(self, child: Watched) -> Counting:
        """Count what a child does from now on, until the returned context ends."""
        if self.accounts is None:
            return Counting(child, None, self.reason)
        try:
            return Counting(child, self.accounts.open(child.identity, child.filter), "")
        except NotCounted as error:
            return Counting(child, None, str(error))

    def close(self) -> None:
        """Give back all accounts; closing twice is fine."""
        if self.accounts is not None:
            self.accounts.close()


UNWITNESSED: Final = Witnessing()
"""Nobody asked."""


def told_uncounted(result: Result, reason: str) -> Result:
    """Return a result that says why the kernel did not count it; an empty reason says nothing."""
    if not reason:
        return result
    return replace(result, isolation=replace(result.isolation, witness=f"not counted: {reason}"))


class Counting:
    """The counting of one child, for one thread at a time.

    Args:
        child: Who.
        account: Where; None if it is not counted.
        reason: Why it is not; empty if nobody asked.
    """

    def __init__(self, child: Watched, account: Account | None, reason: str) -> None:
        self._child = child
        self._account = account
        self._reason = reason
        self._since: Words | None = None
        self._usage: KernelUsage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def now(self) -> KernelUsage | None:
        """Return what was counted up to now; None if nothing is. May be called from any thread."""
        return None if self._account is None else self._account.usage_if_open(self._since)

    def begin(self) -> None:
        """Have the next `finish` take only what happens from now on."""
        if self._account is not None:
            self._since = self._account.words()

    def finish(self, *, killed: bool) -> None:
        """Take what was counted up to now, for `told`.

        Args:
            killed: The child did not come to answer: its end is waited for, so that its last moments count.
        """
        self._usage = None
        if self._account is None:
            return
        if killed and not has_ended(self._child.pidfd, _END_S):
            self._reason = "the sandbox had not ended when it was to be read"
            return
        self._usage = self._account.usage(self._since)

    def told(self, result: Result) -> Result:
        """Return the result of what has finished, with what the kernel counted, or with why it did not."""
        if self._usage is None:
            return told_uncounted(result, self._reason)
        return replace(
            result,
            # Its clock lags behind a process that still runs, by a tick at most; the account was charged at its answer.
            usage=replace(result.usage, kernel=self._usage, cpu_s=max(result.usage.cpu_s or 0.0, self._usage.cpu_s)),
            isolation=replace(result.isolation, witness=COUNTED),
        )

    def close(self) -> None:
        """Stop counting; closing twice is fine."""
        if self._account is not None:
            self._account.close()
