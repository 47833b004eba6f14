"""On the host: the work of running one Python task in an engine process."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from runvisor.actors.channel.frames import Message
from runvisor.actors.runtime import Watch
from runvisor.actors.wasm.components.requests import Asking
from runvisor.actors.wasm.cpython.messages import json_text
from runvisor.actors.wasm.executions import Outcome
from runvisor.actors.wasm.image import Image
from runvisor.actors.wasm.images.cpython import FILE
from runvisor.actors.wasm.images.recipes import remedy
from runvisor.actors.wasm.images.store import find_image, read_image
from runvisor.actors.wasm.lanes import Lane
from runvisor.actors.wasm.links import EngineLink
from runvisor.policies import errors
from runvisor.policies.permissions import Permissions
from runvisor.policies.task import Task
from runvisor.policies.values import pack

IMAGE: Final = "cpython"


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
    _asking: Asking = field(init=False)

    def __post_init__(self) -> None:
        python_image()
        self._asking = Asking(self.permissions, self.watch)
        if self.task.files:
            raise errors.InvalidTask("Python in wasm has no files", "files", "pass the data as inputs")

    @property
    def memory_bytes(self) -> int:
        """What the instance may take in all."""
        return self.permissions.memory_bytes + python_image().memory_bytes

    def __call__(self, link: EngineLink, lane: Lane) -> Outcome:
        """Load the image if the engine does not have it, and run the task."""
        image = python_image().metered if self._asking.is_counted else python_image().plain
        link.load_image(lane, image)
        request: Message = {"op": "python", "image": image.name, "profile": image.profile, "task": self._text()}
        outcome = self._asking.ask(link, lane, request, self.memory_bytes)
        if not isinstance(outcome, Outcome):
            raise errors.ProtocolError("the engine answered neither a value nor an error")
        return outcome

    def _text(self) -> bytes:
        said = {"code": self.task.source, "label": self.task.label, "env": dict(self.permissions.env)}
        inputs = json_text(self.task.inputs)
        if inputs is None:
            said["packed"] = base64.b64encode(pack(self.task.inputs)).decode()
        head = json.dumps(said)
        text = head if inputs is None else f'{head[:-1]}, "inputs": {inputs}}}'
        self.input_bytes = len(text)
        return text.encode()
