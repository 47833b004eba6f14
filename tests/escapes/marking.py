"""How attacks become parameters of a test."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from tests.escapes.attack import Attack


def as_parameters(attacks: Iterable[Attack]) -> list[Any]:
    """Mark those that this machine cannot run, and those whose ending is known to be wrong."""
    return [pytest.param(attack, id=attack.name, marks=_marks(attack)) for attack in attacks]


def selected(request: pytest.FixtureRequest, language: str) -> list[Attack]:
    """Return the attacks in a language that this run's selection of tests has left in a fixture's module."""
    items = [item for item in request.session.items if item.getparent(pytest.Module) is request.node]
    attacks = [item.callspec.params.get("attack") for item in items if hasattr(item, "callspec")]
    return list({attack.name: attack for attack in attacks if attack and attack.language == language}.values())


def known(finding: str) -> tuple[pytest.MarkDecorator, ...]:
    """Mark what is known to go wrong; it must, unless the finding begins with ``sometimes``."""
    return (pytest.mark.xfail(reason=finding, strict=not finding.startswith("sometimes")),) if finding else ()


def _marks(attack: Attack) -> tuple[pytest.MarkDecorator, ...]:
    foreign = (pytest.mark.skip(reason=f"written for {attack.only}"),) if attack.is_foreign else ()
    return foreign + known(attack.finding)
