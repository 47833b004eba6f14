"""What some tests need of the user who runs them, with the reason for which they are left out."""

from __future__ import annotations

import pytest

from runvisor.actors.jail.spec import MEMORY_CGROUP
from runvisor.actors.jail.standing import Standing, engine_layers, find_standing

needs_memory_cgroup = pytest.mark.skipif(
    MEMORY_CGROUP not in engine_layers(),
    reason="this user can make no memory cgroup: only it tells whose pages are whose, and kills what has too many",
)
needs_namespaces = pytest.mark.skipif(
    find_standing() is Standing.PLAIN, reason="this user can make no namespaces: nothing is shown, given or taken"
)
