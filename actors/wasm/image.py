"""Images: modules and components of ours that guests' programs run on, such as an interpreter.

How an arm is built on one:

1. A trusted build makes the image's bytes. `Image` names them, and the profile
   whose engine runs them: one of its own in `runvisor.actors.wasm.profiles`.
2. On the host, inside the work given to `executions.on_engine`, the arm calls
   ``link.load_image(lane, image)``. The first time for a machine it is compiled in a
   process of its own and kept in the artifact cache; the first time for an engine
   process, that maps the native code. Later calls cost a look into a set.
3. The arm's module for the engine process is listed in
   `runvisor.actors.wasm.operations`. It may add host functions to its profile's
   linker, and it answers the arm's requests (``lane.ask({"op": ...})``): it finds
   the image with ``lane.image(name)``, makes a fresh store with
   ``lane.store(profile)``, and replies. It may have the next instance made when
   the reply is out (``lane.standby``).

An image stays in an engine process until that ends: guests' modules come and go
beside it, and never push it out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from runvisor.actors.wasm.profiles import PROFILES
from runvisor.policies.errors import ConfigError


@dataclass(frozen=True)
class Image:
    r"""A module or component of ours, to be loaded into engine processes on demand.

    Args:
        name: What the engine's side asks for it by.
        source: The wasm binary, or the file that holds it. It is ours: nothing a guest can write to.
        profile: Name of the profile whose engine runs it.
        is_component: Whether it is a component instead of a core module.

    Raises:
        ConfigError: There is no such profile, or components are not for it.

    Example:
        >>> Image("empty", b"\0asm\1\0\0\0", "plain").digest.hex()[:8]
        '93a44bbb'
    """

    name: str
    source: bytes | Path = field(repr=False)
    profile: str
    is_component: bool = False

    def __post_init__(self) -> None:
        profile = PROFILES.get(self.profile)
        if profile is None or (self.is_component and not profile.has_components):
            raise ConfigError(f"the profile {self.profile!r} is not for the image {self.name}", "profile")

    @cached_property
    def code(self) -> bytes:
        """The binary.

        Raises:
            ConfigError: The file cannot be read.
        """
        if isinstance(self.source, bytes):
            return self.source
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise ConfigError(f"the image {self.name} cannot be read: {error.strerror}", str(self.source)) from None

    @cached_property
    def digest(self) -> bytes:
        """The hash of the binary."""
        return hashlib.sha256(self.code).digest()
