"""The authority of a handle: what its principal may claim, sealed by the supervisor.

A pool trusts no frame. It trusts this token, because only the supervisor and
the pools hold the key: HMAC-SHA256 (RFC 2104) over the packed claims.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any, Final

from runvisor.policies.errors import ProtocolError, RunvisorError, TrustViolation
from runvisor.policies.permissions import Permissions
from runvisor.policies.trust import Trust
from runvisor.policies.values import pack, unpack

_MAC_BYTES: Final = 32
MIN_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Authority:
    """A principal's ceiling, with an expiry.

    Example:
        >>> key = bytes(32)
        >>> token = Authority("me", Trust.VERIFIED, None, expires_at=100.0).seal(key)
        >>> Authority.unseal(token, key, now=99.0).trust.label
        'verified'
    """

    principal: str
    trust: Trust
    permissions: Permissions | None
    """The principal's own ceiling; None leaves only the trust level's."""
    expires_at: float
    """Unix time in seconds."""
    epoch: int = 0
    """The supervisor's epoch; pools refuse tokens of an older one."""

    def seal(self, key: bytes) -> bytes:
        """Return the token: the claims and their MAC.

        Args:
            key: At least 32 secret bytes, shared with the pools only.
        """
        _check_key(key)
        claims: dict[str, Any] = {
            "principal": self.principal,
            "trust": int(self.trust),
            "permissions": self.permissions.to_dict() if self.permissions else None,
            "expires_at": self.expires_at,
            "epoch": self.epoch,
        }
        body = pack(claims)
        return hmac.digest(key, body, hashlib.sha256) + body

    @classmethod
    def unseal(cls, token: bytes, key: bytes, *, now: float, min_epoch: int = 0) -> Authority:
        """Check a token and return its claims.

        Raises:
            TrustViolation: The token is forged, damaged, expired or of an old epoch.
            ValueError: The key is too short to have sealed anything.
        """
        _check_key(key)
        body = token[_MAC_BYTES:]
        if not hmac.compare_digest(token[:_MAC_BYTES], hmac.digest(key, body, hashlib.sha256)):
            raise TrustViolation(
                "the authority token was not sealed by this supervisor", "authority", "attach to the supervisor anew"
            )
        try:
            claims = unpack(body)
            limits = claims["permissions"]
            authority = cls(
                principal=claims["principal"],
                trust=Trust(claims["trust"]),
                permissions=None if limits is None else Permissions.from_dict(limits),
                expires_at=claims["expires_at"],
                epoch=claims["epoch"],
            )
        except (RunvisorError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"not an authority: {error}") from None
        if not now < authority.expires_at:  # also when it is not a number
            raise TrustViolation("the authority token has expired", "authority", "attach to the supervisor anew")
        if authority.epoch < min_epoch:
            raise TrustViolation("the authority token is of an old supervisor", "authority", "attach anew")
        return authority


def _check_key(key: bytes) -> None:
    if len(key) < MIN_KEY_BYTES:
        raise ValueError(f"the key must have at least {MIN_KEY_BYTES} bytes")
