"""Keeps pytest out of the top-level source folders.

They are collected through ``src/runvisor``, where they are importable as
``runvisor.policies`` and so on; collected where they lie they would be
imported a second time, and every class would exist twice.
"""

from __future__ import annotations

collect_ignore = ["policies", "actors", "supervisor", "build", "dist", "out"]
