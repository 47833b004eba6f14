"""What cannot run on this machine."""

from __future__ import annotations

from runvisor.actors import registry


def unavailable_here() -> dict[str, str]:
    """Probe each runtime; returns the reason for each runtime or variant that cannot run on this machine."""
    unavailable: dict[str, str] = {}
    for name in registry.names():
        probe = registry.probe(name)
        if not probe.available:
            unavailable[name] = f"{probe.detail}; {probe.remedy}"
        for variant, reason in probe.unavailable_variants:
            unavailable[f"{name}/{variant}"] = reason
    return unavailable
