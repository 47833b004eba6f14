"""What the operator decides about runtimes, once, when a supervisor starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runvisor.actors.python.profiles import PythonProfile


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """The same for every pool; each runtime reads what concerns it."""

    python_profile: str | PythonProfile = "science"
    """What Python tasks find loaded: ``bare``, ``science``, or packages and an environment of your own."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Hosts whose places are pinned, ``name`` or ``name:port`` to ``address`` or ``address:port``. They
    need not be global, as all others must; a grant must still name them."""
    accept_weak_isolation: bool = False
    """Run untrusted code where this user cannot have every layer that it should have around it."""
