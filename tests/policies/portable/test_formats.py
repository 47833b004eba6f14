"""Which formats of fractions are found before a program runs."""

from __future__ import annotations

import pytest

from runvisor.policies.portable.check import objection

IMPORT = "from fractions import Fraction\na = Fraction(1, 3)\n"


@pytest.mark.parametrize(
    "use",
    ["f'{a:>8}'", "'{:.2f}'.format(a)", "format(a, '8')", "t = '{:8}'\nt.format(a)", "'{x:8}'.format_map({'x': a})"],
)
def test_a_format_that_may_meet_a_fraction_is_not_portable(use: str) -> None:
    assert "Fraction" in (objection(IMPORT + use) or "")


@pytest.mark.parametrize("use", ["f'{a}'", "f'{a!r}'", "'{} {}'.format(a, 1)", "str(a)", "'%s' % a"])
def test_a_fraction_as_text_is_portable(use: str) -> None:
    assert objection(IMPORT + use) is None


def test_without_fractions_every_format_is_portable() -> None:
    assert objection("f'{3:>8}' + '{:.2f}'.format(1.5) + format(3, '8')") is None
