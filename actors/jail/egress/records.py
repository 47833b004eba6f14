"""What the broker decides and reports, and the bounds it keeps for one execution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Literal

from runvisor.policies.errors import ProtocolError
from runvisor.policies.permissions import MiB

Step = Literal["allowed", "denied", "ended"]
Via = Literal["http", "connect", "direct"]
_STEPS: Final = ("allowed", "denied", "ended")
_VIAS: Final = ("http", "connect", "direct")
_MAX_TEXT: Final = 300


class Refused(Exception):
    """The policy or the protocol says no; the reason goes to the guest and to the audit log.

    Args:
        reason: One sentence, without bytes of the guest that were not checked.
        status: The HTTP status that says it.
    """

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason, status)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """Bounds of one execution's network."""

    max_requests: int = 1000
    """Connections and requests, refused ones included; after the last, nothing is answered."""
    max_connections: int = 32
    """Connections at a time; more wait unaccepted."""
    upload_bytes: int = 64 * MiB
    """From the guest, over all connections."""
    download_bytes: int = 256 * MiB
    """To the guest, over all connections."""
    head_timeout_s: float = 10.0
    """For the whole head of a request, or the client's whole TLS greeting."""
    connect_timeout_s: float = 10.0
    """For resolving and connecting together."""
    idle_timeout_s: float = 60.0
    """For a connection on which no byte moves either way."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**63:
                raise ValueError(f"{item.name} must be a positive number")

    def to_message(self) -> dict[str, Any]:
        """Return the limits as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EgressRecord:
    """One line for the audit log.

    A decision is reported before any byte passes on; ``ended`` follows each
    ``allowed`` with what was moved.

    Example:
        >>> record = EgressRecord("denied", "connect", "evil.example", 443, "", "not in network.allowed_hosts")
        >>> EgressRecord.from_message(record.to_message()) == record
        True
    """

    step: Step
    via: Via
    """``http`` and ``connect`` through the proxy or port 80, ``direct`` past it."""
    host: str
    """As understood; empty when nothing could be."""
    port: int
    address: str
    """Where the connection goes; empty while that is unknown."""
    reason: str
    """Why it was denied, or how it ended."""
    upload_bytes: int = 0
    download_bytes: int = 0

    def to_message(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> EgressRecord:
        """Read what `to_message` wrote, trusting none of it: the broker reads hostile bytes.

        Raises:
            ProtocolError: It is no record.
        """
        texts = [message.get(name) for name in ("host", "address", "reason")]
        numbers = [message.get(name) for name in ("port", "upload_bytes", "download_bytes")]
        step, via = message.get("step"), message.get("via")
        sound = (
            step in _STEPS
            and via in _VIAS
            and all(isinstance(text, str) and len(text) <= _MAX_TEXT for text in texts)
            and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
        )
        if not sound:
            raise ProtocolError("the egress broker sent a malformed record")
        return cls(**{item.name: message[item.name] for item in fields(cls)})


class Ledger:
    """What one execution has used of its bounds.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: EgressLimits) -> None:
        self.limits = limits
        self.requests = 0
        self.upload_bytes = 0
        self.download_bytes = 0

    @property
    def exhausted(self) -> bool:
        """Whether every further connection is refused."""
        return self.requests >= self.limits.max_requests

    def count_request(self) -> None:
        """Count a connection or request that asks for something."""
        self.requests += 1

    def count_upload(self, size: int) -> None:
        """Count bytes before they leave.

        Raises:
            Refused: They are more than the execution may send.
        """
        if self.upload_bytes + size > self.limits.upload_bytes:
            raise Refused(f"this execution may send {self.limits.upload_bytes} bytes", 413)
        self.upload_bytes += size

    def count_download(self, size: int) -> None:
        """Count bytes before they are handed in.

        Raises:
            Refused: They are more than the execution may receive.
        """
        if self.download_bytes + size > self.limits.download_bytes:
            raise Refused(f"this execution may receive {self.limits.download_bytes} bytes", 502)
        self.download_bytes += size
