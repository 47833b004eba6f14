"""Check that an installed wheel holds the three packages, whole and out of the repository's reach."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

prefix = Path(sys.prefix).resolve()
for name in ("runvisor", "runvisor.policies", "runvisor.actors", "runvisor.supervisor", "runvisor.policies.task"):
    module = importlib.import_module(name)
    place = Path(str(module.__file__)).resolve()
    if prefix not in place.parents:
        raise SystemExit(f"{name} came from {place}, not from the wheel")
for name in ("policies", "actors", "supervisor"):
    if importlib.util.find_spec(name) is not None:
        raise SystemExit(f"the wheel installed a top-level package {name!r}")
print(f"the wheel imports from {prefix.name}: runvisor and its three packages")
