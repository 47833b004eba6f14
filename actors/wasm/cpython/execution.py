"""On the host: the work of running one Python task in an engine process."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.cpython.messages import json_text
from runvisor.actors.wasm.executions import GRACE_S, UNBOUNDED, Outcome, of_type
from runvisor.actors.wasm.hearing import Heard, ignore_denial
from runvisor.actors.wasm.image import Image
from runvisor.actors.wasm.images.cpython import FILE
from runvisor.actors.wasm.images.recipes import remedy
from runvisor.actors.wasm.images.store import find_image, read_image
from runvisor.actors.wasm.lanes import EngineLink, Lane, Unanswered, guest_error
from runvisor.policies import errors
from runvisor.policies.permissions import MiB, Permissions
from runvisor.policies.task import Task
from runvisor.policies.values import pack, unpack

IMAGE: Final = "cpython"
_MAX_REPLY_BYTES: Final = 64 * MiB
_MAX_VALUE_BYTES: Final = 512 * MiB


@dataclass(frozen=True)
class PythonImage:
    """The image in both of its forms, and what a task's memory begins with."""

    plain: Image
    metered: Image
    memory_bytes: int
    """What the interpreter itself takes; a task's memory comes on top."""


@cache
def python_image() -> PythonImage:
    """Return the image.

    Raises:
        ConfigError: It is not built; says how to.
    """
    code, manifest = read_image(IMAGE, FILE)
    plain, metered = (Image(name, code, name, is_component=True) for name in ("cpython", "cpython-metered"))
    return PythonImage(plain, metered, int(manifest.facts["memory_bytes"]))


def unavailable() -> str | None:
    """Say why Python cannot run here, or None if it can."""
    return None if find_image(IMAGE) is not None else f"its image is not built; {remedy(IMAGE)}"


@dataclass(slots=True, eq=False)
class PythonRun:
    """The work of running a Python task.

    Args:
        task: What to run.
        permissions: The grant's.
        watch: See below.

    Raises:
        ConfigError: The image is not built, or the task brings files.
    """

    task: Task
    permissions: Permissions
    watch: Watch
    """Told of the start, before the guest's code begins; asked whether to go on."""
    input_bytes: int = 0
    """Bytes of the request, known when it has run."""
    _has_started: bool = False
    _told: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        python_image()
        if self.task.files:
            raise errors.InvalidTask("Python in wasm has no files", "files", "pass the data as inputs")

    @property
    def memory_bytes(self) -> int:
        """What the instance may take in all."""
        return self.permissions.memory_bytes + python_image().memory_bytes

    def __call__(self, link: EngineLink, lane: Lane) -> Outcome:
        """Load the image if the engine does not have it, and run the task."""
        permissions = self.permissions
        is_counted = permissions.deterministic or permissions.instructions is not None
        image = python_image().metered if is_counted else python_image().plain
        link.load_image(lane, image)
        request: Message = {
            "op": "python",
            "image": image.name,
            "profile": image.profile,
            "task": self._text(),
            "timeout_s": permissions.timeout_s,
            "memory_bytes": self.memory_bytes,
            "output_bytes": permissions.output_bytes,
            "is_deterministic": permissions.deterministic,
        }
        if is_counted:
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
            link.condemn()
            error = errors.TimeLimitExceeded(
                f"the task ran longer than {permissions.timeout_s:g} s and did not stop when told to",
                "timeout_s",
                "raise timeout_s, or do less",
            )
            out, err = heard.all_of(1, b""), heard.all_of(2, b"")
            return Outcome(error=error, stdout=out, stderr=err, told=heard.told, wall_s=time.perf_counter() - began)
        return replace(_read(reply, heard), wall_s=time.perf_counter() - began)

    def _text(self) -> bytes:
        said = {"code": self.task.source, "label": self.task.label, "env": dict(self.permissions.env)}
        inputs = json_text(self.task.inputs)
        if inputs is None:
            said["packed"] = base64.b64encode(pack(self.task.inputs)).decode()
        head = json.dumps(said)
        text = head if inputs is None else f'{head[:-1]}, "inputs": {inputs}}}'
        self.input_bytes = len(text)
        return text.encode()


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
