"""Hypothesis without deadlines: the machine may be busy, and no example here waits for anything."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("policies", deadline=None, max_examples=40)
settings.load_profile("policies")
