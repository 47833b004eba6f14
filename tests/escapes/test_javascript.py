"""Our own hostile JavaScript: each program ends in the one way that our design gives it, and harms nothing."""

from __future__ import annotations

import pytest

from runvisor.actors.jail.probe import probe_jail
from tests.escapes.attack import Attack, own_attacks
from tests.escapes.marking import as_parameters, selected
from tests.escapes.range import Range

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail),
]
ATTACKS = own_attacks("js")


@pytest.fixture(scope="module")
def shooting(v8_range: Range, request: pytest.FixtureRequest) -> Range:
    v8_range.expect_all(selected(request, "javascript"))
    return v8_range


@pytest.mark.parametrize("attack", as_parameters(ATTACKS))
def test_it_ends_as_designed_and_harms_nothing(shooting: Range, attack: Attack) -> None:
    aftermath = shooting.aftermath(attack)
    assert (aftermath.ending, aftermath.harm) == (attack.ends_within(shooting.layers), []), aftermath.result
