"""The host's side: a task's program, handed to an engine that has the image."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.executions import GRACE_S, Outcome, not_stopped, of_type
from runvisor.actors.wasm.hearing import Heard, ignore_denial
from runvisor.actors.wasm.image import Image
from runvisor.actors.wasm.images.manifest import Manifest
from runvisor.actors.wasm.images.quickjs import FILE
from runvisor.actors.wasm.images.recipes import remedy
from runvisor.actors.wasm.images.store import find_image, read_image
from runvisor.actors.wasm.javascript.agreement import IMAGE, METERED, OPERATION, PLAIN, image_name
from runvisor.actors.wasm.lanes import Lane, Unanswered
from runvisor.actors.wasm.links import EngineLink
from runvisor.actors.wasm.replies import guest_error
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.values import Value, pack, unpack

_REPLIES: Final = 8
"""A reply is at most so many times the output's cap: both streams, and the value."""
_SEED_BYTES: Final = 8


def unavailable() -> str | None:
    """Say why JavaScript cannot run on wasm here, or None if it can."""
    return None if find_image(IMAGE) is not None else f"its image is not built; {remedy(IMAGE)}"


@lru_cache(maxsize=2)
def image_of(profile: str) -> tuple[Image, Manifest]:
    """Return the image for a profile, checked and read once.

    Raises:
        ConfigError: It is not built, or not as it was built.
    """
    code, manifest = read_image(IMAGE, FILE)
    return Image(image_name(profile), code, profile), manifest


@dataclass(slots=True, eq=False)
class JavaScriptRun:
    """The work of running a program; see `runvisor.actors.wasm.executions.Work`.

    Args:
        code: The program.
        inputs: The task's inputs.
        permissions: The grant's.
        watch: Told of the start and of output; asked whether to go on.
    """

    code: str
    inputs: Value
    permissions: Permissions
    watch: Watch
    input_bytes: int = 0
    """Known when it has run."""
    _has_started: bool = False
    _told: list[int] = field(default_factory=lambda: [0, 0])

    def __call__(self, link: EngineLink, lane: Lane) -> Outcome:
        """Have the engine load the image if it has not, and run the program."""
        permissions = self.permissions
        profile = PLAIN if permissions.instructions is None else METERED
        image, manifest = image_of(profile)
        began = time.perf_counter()
        link.load_image(lane, image)
        packed = b"" if self.inputs is None else pack(self.inputs)
        self.input_bytes = len(packed)
        request: Message = {
            "op": OPERATION,
            "profile": profile,
            "code": self.code,
            "inputs": packed,
            "facts": manifest.facts,
            "seed": secrets.token_bytes(_SEED_BYTES - 1) + b"\1",
            "timeout_s": permissions.timeout_s,
            "memory_bytes": permissions.memory_bytes,
            "output_bytes": permissions.output_bytes,
        }
        if permissions.instructions is not None:
            request["fuel"] = permissions.instructions
        if self.watch.wants_output:
            request["follow"] = True
        if not self._has_started:
            self._has_started = True
            self.watch.started()
        heard = Heard(permissions.output_bytes, self.watch.output, ignore_denial, self._told)
        loaded = time.perf_counter()
        try:
            reply = lane.ask(
                request,
                permissions.timeout_s + GRACE_S,
                _REPLIES * permissions.output_bytes + MiB,
                hear=heard.hear,
                cancellation=self.watch.cancellation,
            )
        except Unanswered:
            return not_stopped(link, permissions, heard, time.perf_counter() - loaded)
        return self._read(reply, heard, time.perf_counter() - loaded, loaded - began)

    def _read(self, reply: Message, heard: Heard, wall_s: float, load_s: float) -> Outcome:
        error = guest_error(reply["error"]) if "error" in reply else None
        packed = of_type(reply, "value", bytes) if error is None else b""
        if len(packed) > self.permissions.output_bytes:
            error = errors.OutputLimitExceeded(
                f"the value takes {len(packed)} bytes, more than {self.permissions.output_bytes}",
                "output_bytes",
                "return less, or raise output_bytes",
            )
        return Outcome(
            value=unpack(packed) if error is None else None,
            error=error,
            stdout=heard.all_of(1, of_type(reply, "stdout", bytes)),
            stderr=heard.all_of(2, of_type(reply, "stderr", bytes)),
            told=heard.told,
            value_bytes=len(packed),
            wall_s=wall_s,
            cpu_s=of_type(reply, "cpu_s", float),
            memory_bytes=None if reply.get("memory_bytes") is None else of_type(reply, "memory_bytes", int),
            instructions=None if reply.get("instructions") is None else of_type(reply, "instructions", int),
            was_cold=load_s > _COLD_S,
        )


_COLD_S: Final = 0.001
"""Loading that took longer was no look into a set."""
