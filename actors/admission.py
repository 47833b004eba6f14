"""Who asks, and what they may have: the checks that every request to a pool goes through."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from runvisor.actors.audit_log import AuditLog
from runvisor.actors.channel.frames import Message
from runvisor.actors.process_birth import process_birth
from runvisor.policies.authority import Authority
from runvisor.policies.errors import (
    CapabilityDenied,
    IsolationUnavailable,
    PolicyError,
    ProtocolError,
    TrustViolation,
)
from runvisor.policies.observations import ObservationRequest
from runvisor.policies.result import Result
from runvisor.policies.scheduling.arms import ARMS, Arm, exclusion, unfit_for_profile
from runvisor.policies.task import Task
from runvisor.policies.tickets import ProcessTicket
from runvisor.policies.trust import Grant, Trust, resolve_grant

_MAX_KNOWN_TOKENS: Final = 256
_TICKET_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """A task that may run."""

    task: Task
    grant: Grant
    arm: Arm

    def subject(self) -> dict[str, Any]:
        """Return what the audit log says of it."""
        code = self.task.code.encode() if isinstance(self.task.code, str) else self.task.code
        return {
            "code_sha256": hashlib.sha256(code).hexdigest(),
            "language": self.task.language,
            "label": self.task.label,
            "profile": self.task.profile,
            "arm": self.arm.name,
            "trust": self.grant.trust.label,
            "narrowed": list(self.grant.narrowed),
        }


@dataclass(frozen=True, slots=True)
class AdmittedObservation:
    """An observation that may be made."""

    principal: str
    request: ObservationRequest
    target: str
    """Whose process it is, for the audit log."""
    birth: str
    """Which process the ticket is for; empty without one."""
    trust: Trust
    """The most that the principal may claim."""


def ending(result: Result) -> dict[str, Any]:
    """Return what the audit log says of how an execution ended."""
    said: dict[str, Any] = {
        "error": type(result.error).__name__ if result.error else None,
        "wall_s": result.usage.wall_s,
    }
    if result.usage.kernel is not None:
        said["kernel"] = result.usage.kernel.summary()
    elif result.isolation.witness:
        said["witness"] = result.isolation.witness
    return said


class Admission:
    """Believes nothing in a request except the sealed authority. Safe from many threads.

    Args:
        runtime: The name of the pool's runtime.
        key: What authorities are sealed with.
        audit: Where denials are recorded.
        allow_untrusted_bpf: The operator lets untrusted programs into the kernel.
        missing_layers: Layers for want of which untrusted code is refused.
    """

    def __init__(
        self,
        runtime: str,
        key: bytes,
        audit: AuditLog,
        *,
        allow_untrusted_bpf: bool = False,
        missing_layers: tuple[str, ...] = (),
    ) -> None:
        self._missing_layers = missing_layers
        self._runtime = runtime
        self._key = key
        self._audit = audit
        self._allow_untrusted_bpf = allow_untrusted_bpf
        self._known: dict[bytes, Authority] = {}
        self._known_lock = threading.Lock()

    def admit(self, request: Message) -> Admitted:
        """Compute what a request's task is granted, or refuse it and record that.

        Args:
            request: With ``authority``, ``task``, ``variant`` and ``on_excess``.

        Raises:
            PolicyError: It asks for more than it may have, or this pool may not run it.
            ProtocolError: It is malformed.
        """
        with self._recorded() as who:
            authority = who.authority = self._authority(request.get("authority"))
            task = Task.from_wire(_mapping(request.get("task")))
            grant = resolve_grant(
                task.permissions,
                task.trust,
                principal=authority.principal,
                trust_ceiling=authority.trust,
                permission_ceiling=authority.permissions,
                on_excess="narrow" if request.get("on_excess") == "narrow" else "refuse",
            )
            arm = self._arm(request.get("variant"))
            unfit = unfit_for_profile((arm,), task.profile)
            reason = exclusion(arm, task.language, grant, unfit, allow_untrusted_bpf=self._allow_untrusted_bpf)
            if reason is not None:
                raise PolicyError(f"{arm.name} may not run this task: {reason}", self._runtime)
            if grant.trust is Trust.UNTRUSTED and self._missing_layers:
                raise IsolationUnavailable(
                    f"untrusted code would run here without: {', '.join(self._missing_layers)}",
                    self._runtime,
                    "run as root or allow user namespaces; else the operator may set accept_weak_isolation",
                )
            return Admitted(task, grant, arm)

    def admit_observation(self, request: Message) -> AdmittedObservation:
        """Return who wants to observe, what, and whose process that is; or refuse it and record that.

        An observer sees what another process does, so it takes trust to name any. A
        principal's own executions, for which their pool gave it a ticket, take less, unless
        a program of the principal's is to run in the kernel.

        Args:
            request: With ``authority``, ``observation`` and, for an own execution, ``ticket``.

        Raises:
            PolicyError: The principal may not see that process, or not for so long.
            ConfigError: It names nothing that can be observed.
            ProtocolError: It is malformed.
        """
        with self._recorded() as who:
            authority = who.authority = self._authority(request.get("authority"))
            asked = ObservationRequest.from_wire(request.get("observation"))
            is_own = request.get("ticket") is not None
            birth = self._birth(request["ticket"], authority.principal, asked.pid) if is_own else ""
            target, least = ("own execution", Trust.VERIFIED) if is_own else ("process", Trust.TRUSTED)
            if asked.program is not None:
                least = Trust.TRUSTED
            if authority.trust < least:
                what = "its own executions" if is_own else "a process by its number"
                what = "by a program of its own" if asked.program is not None else what
                raise TrustViolation(
                    f"{authority.principal} may claim at most {authority.trust.label} trust, and to observe "
                    f"{what} takes {least.label}",
                    "trust",
                    "ask the operator for a higher ceiling",
                )
            limit_s = authority.permissions.timeout_s if authority.permissions else math.inf
            if asked.duration_s > limit_s:
                raise CapabilityDenied(
                    f"{authority.principal} may not observe for {asked.duration_s:g} s",
                    "duration_s",
                    f"ask for at most {limit_s:g} s",
                )
            return AdmittedObservation(authority.principal, asked, target, birth, authority.trust)

    def ticket(self, principal: str, pid: int, birth: str) -> bytes:
        """Seal that a process is a principal's, so that another pool believes it.

        Args:
            principal: Whose execution it is.
            pid: Its process.
            birth: What tells it from others that have or had the number. The caller knows that it was the
                principal's; the number alone may be somebody else's by now.
        """
        return ProcessTicket(principal, pid, birth, time.time() + _TICKET_S).seal(self._key)

    def principal(self, request: Message) -> str:
        """Return on whose behalf a request comes, or refuse it and record that.

        Raises:
            PolicyError: Its authority is forged or has expired.
            ProtocolError: It bears none.
        """
        with self._recorded():
            return self._authority(request.get("authority")).principal

    def _birth(self, sealed: object, principal: str, pid: int) -> str:
        """Check a ticket, and return the birth that it is sealed for."""
        if not isinstance(sealed, bytes):
            raise ProtocolError("a ticket is bytes", "ticket")
        ticket = ProcessTicket.unseal(sealed, self._key, now=time.time())
        if (ticket.principal, ticket.pid) != (principal, pid):
            raise TrustViolation(f"the ticket is not for process {pid} and {principal}", "ticket")
        if not ticket.birth or ticket.birth != process_birth(pid):
            raise TrustViolation(
                f"process {pid} has ended, or runs on another node", "ticket", "observe an execution that still runs"
            )
        return ticket.birth

    @contextmanager
    def _recorded(self) -> Iterator[_Asker]:
        asker = _Asker()
        try:
            yield asker
        except (PolicyError, ProtocolError) as error:
            principal = asker.authority.principal if asker.authority is not None else "unknown"
            self._audit.append("denial", type(error).__name__, principal, {"what": str(error)})
            raise

    def _authority(self, token: object) -> Authority:
        if not isinstance(token, bytes):
            raise ProtocolError("the request bears no authority", "authority")
        now = time.time()
        known = self._known.get(token)
        if known is not None and now < known.expires_at:
            return known
        authority = Authority.unseal(token, self._key, now=now)
        with self._known_lock:
            if len(self._known) >= _MAX_KNOWN_TOKENS:
                self._known.clear()
            self._known[token] = authority
        return authority

    def _arm(self, variant: object) -> Arm:
        for arm in ARMS:
            if arm.runtime == self._runtime and arm.variant == variant:
                return arm
        raise ProtocolError(f"{self._runtime} has no variant {variant!r}")


@dataclass(slots=True)
class _Asker:
    """Who asks, as far as that is known yet."""

    authority: Authority | None = None


def _mapping(data: object) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise ProtocolError("the request holds no task")
    return data
