"""On the host: asking an engine for one run, see `runvisor.actors.wasm.components.calls`, and what it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.executions import GRACE_S, UNBOUNDED, Outcome, not_stopped, of_type
from runvisor.actors.wasm.hearing import Heard, ignore_denial
from runvisor.actors.wasm.lanes import Lane, Unanswered
from runvisor.actors.wasm.links import EngineLink
from runvisor.actors.wasm.replies import guest_error
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.values import unpack

_MAX_REPLY_BYTES: Final = 64 * MiB
_MAX_VALUE_BYTES: Final = 512 * MiB


@dataclass(slots=True, eq=False)
class Asking:
    """What all requests of one task have in common.

    Args:
        permissions: The grant's.
        watch: Told of the start, before the guest's code begins; asked whether to go on.
    """

    permissions: Permissions
    watch: Watch
    _has_started: bool = False
    _told: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def is_counted(self) -> bool:
        """Whether instructions are counted."""
        return self.permissions.deterministic or self.permissions.instructions is not None

    def ask(self, link: EngineLink, lane: Lane, request: Message, memory_bytes: int) -> Message | Outcome:
        """Ask for a run, and return the reply, or what came of it if there is none.

        Args:
            link: The engine.
            lane: One of it, lent to the caller.
            request: What is the arm's own of it; the limits are added here.
            memory_bytes: What the instance may take in all.
        """
        permissions = self.permissions
        request = {
            **request,
            "timeout_s": permissions.timeout_s,
            "memory_bytes": memory_bytes,
            "output_bytes": permissions.output_bytes,
            "is_deterministic": permissions.deterministic,
        }
        if self.is_counted:
            request["fuel"] = permissions.instructions or UNBOUNDED
        if self.watch.wants_output:
            request["follow"] = True
        if not self._has_started:
            self._has_started = True
            self.watch.started()
        heard = Heard(permissions.output_bytes, self.watch.output, ignore_denial, self._told)
        began = time.perf_counter()
        try:
            most = _MAX_REPLY_BYTES + 2 * permissions.output_bytes
            reply = lane.ask(
                request,
                permissions.timeout_s + GRACE_S,
                most,
                hear=heard.hear,
                cancellation=self.watch.cancellation,
            )
        except Unanswered:
            return not_stopped(link, permissions, heard, time.perf_counter() - began)
        if "value" not in reply and "error" not in reply:
            return reply
        return replace(_read(reply, heard), wall_s=time.perf_counter() - began)


def _read(reply: Message, heard: Heard) -> Outcome:
    error = guest_error(reply["error"]) if "error" in reply else None
    value = None
    packed = b""
    if error is None:
        packed = of_type(reply, "value", bytes)
        try:
            value = unpack(packed, max_bytes=_MAX_VALUE_BYTES)
        except errors.ProtocolError as malformed:
            error = errors.UnserializableValue(f"the task's value does not decode: {malformed.what}", malformed.where)
    return Outcome(
        value=value,
        error=error,
        stdout=heard.all_of(1, of_type(reply, "stdout", bytes)),
        stderr=heard.all_of(2, of_type(reply, "stderr", bytes)),
        told=heard.told,
        value_bytes=len(packed),
        cpu_s=of_type(reply, "cpu_s", float),
        instructions=None if reply.get("instructions") is None else of_type(reply, "instructions", int),
    )
