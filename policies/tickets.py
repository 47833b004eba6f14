"""A pool's word that a process belongs to a principal, for another pool of the same supervisor.

Sealed like an authority (HMAC-SHA256, RFC 2104), but for another purpose, so that neither
can stand for the other.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import astuple, dataclass
from typing import Final

from runvisor.policies.errors import ProtocolError, RunvisorError, TrustViolation
from runvisor.policies.values import pack, unpack

_PURPOSE: Final = b"runvisor process ticket\0"
_MAC_BYTES: Final = 32
_REMEDY: Final = "ask its pool anew"


@dataclass(frozen=True, slots=True)
class ProcessTicket:
    """Whose a process is, until when.

    Example:
        >>> key = bytes(32)
        >>> sealed = ProcessTicket("me", 42, "boot 7", expires_at=100.0).seal(key)
        >>> ProcessTicket.unseal(sealed, key, now=99.0).pid
        42
    """

    principal: str
    pid: int
    birth: str
    """What tells this process from others that have or had its number, on this machine and on others."""
    expires_at: float
    """Unix time in seconds."""

    def seal(self, key: bytes) -> bytes:
        """Return the ticket: its claims and their MAC.

        Args:
            key: Secret bytes, shared by the supervisor's pools only.
        """
        body = pack(list(astuple(self)))
        return hmac.digest(key, _PURPOSE + body, hashlib.sha256) + body

    @classmethod
    def unseal(cls, sealed: bytes, key: bytes, *, now: float) -> ProcessTicket:
        """Check a ticket and return it.

        Raises:
            TrustViolation: It is forged, damaged or expired.
        """
        body = sealed[_MAC_BYTES:]
        if not hmac.compare_digest(sealed[:_MAC_BYTES], hmac.digest(key, _PURPOSE + body, hashlib.sha256)):
            raise TrustViolation("the ticket was not sealed by a pool of this supervisor", "ticket", _REMEDY)
        try:
            principal, pid, birth, expires_at = unpack(body)
            ticket = cls(str(principal), int(pid), str(birth), float(expires_at))
        except (RunvisorError, TypeError, ValueError) as error:
            raise ProtocolError(f"not a ticket: {error}") from None
        if not now < ticket.expires_at:
            raise TrustViolation("the ticket has expired", "ticket", _REMEDY)
        return ticket
