"""A short way to run packet programs on the runtime of the tests beside."""

from __future__ import annotations

from typing import Any

import pytest

from runvisor.actors.ebpf.runtime import EbpfRuntime
from runvisor.actors.runtime import Watch
from runvisor.policies.permissions import Permissions
from runvisor.policies.result import Result
from runvisor.policies.task import Task
from runvisor.policies.trust import Grant, Trust


class PacketAsker:
    """Runs packet programs on one runtime."""

    def __init__(self, runtime: EbpfRuntime) -> None:
        self.runtime = runtime

    def __call__(
        self,
        source: str,
        packets: list[bytes] | None = None,
        *,
        trust: Trust | None = None,
        principal: str = "alice",
        limits: dict[str, Any] | None = None,
        **inputs: Any,
    ) -> Result:
        """Run a program as little trusted as its kind takes."""
        if "pcap" not in inputs:
            inputs["packets"] = packets or []
        least = Trust.TRUSTED if "on_xdp" in source else Trust.VERIFIED
        grant = Grant(principal, least if trust is None else trust, Permissions(**(limits or {})))
        return self.runtime.execute(Task(source, "c-packet", inputs), "packet", grant, Watch())


@pytest.fixture(scope="session")
def run(runtime: EbpfRuntime) -> PacketAsker:
    """Run a packet program on the shared runtime."""
    return PacketAsker(runtime)
