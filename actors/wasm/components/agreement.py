"""What the host's and the engine's side of ``wasm/component`` agree on."""

from __future__ import annotations

from typing import Final

PROFILE: Final = "component"
METERED_PROFILE: Final = "component-metered"
MAGIC: Final = b"\0asm\x0d\0\1\0"
"""What a component begins with: the magic number, version 13 and layer 1."""
LOAD: Final = "load-component"
"""Request (key, profile) -> nothing, or ``error``; its native code came ahead."""
CALL: Final = "call-component"
"""Request (key, function, arguments, and those of `calls`) -> as there, ``unknown``, or ``refused``."""
DESCRIBE: Final = "describe-component"
"""Request (key, profile) -> as `CALL`; runs nothing."""
