"""The threat model says nothing that the suite does not show: each layer and each attack it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from runvisor.actors.jail.spec import ALL_LAYERS
from tests.escapes.attack import ATTACKS, name_of, own_attacks

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text()


def rows(text: str = PAGE) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]


def test_every_layer_has_a_row() -> None:
    assert {row[0] for row in rows()} >= set(ALL_LAYERS)


def test_every_attack_that_is_named_exists() -> None:
    files = {name_of(path) for path in ATTACKS.glob("*/*")} | {path.name for path in Path(__file__).parent.glob("*.py")}
    named = {name for row in rows() for name in re.findall(r"`([a-z0-9_.]+)`", row[-1])}
    assert named - files == set()


def test_every_ending_for_want_of_a_layer_is_listed_and_no_other() -> None:
    attacks = (*own_attacks("py"), *own_attacks("js"))
    wanted = [
        [f"`{attack.name}`", other.layer, other.ends, other.why] for attack in attacks for other in attack.without
    ]
    assert {other.layer for attack in attacks for other in attack.without} <= set(ALL_LAYERS)
    table = PAGE.partition("## Where a layer is missing")[2].partition("\n## ")[0]
    assert [row for row in rows(table) if row[0].startswith("`")] == wanted


def test_every_attack_has_one_expected_ending() -> None:
    for attack in (*own_attacks("py"), *own_attacks("js")):
        kind, *rest = attack.ends.split()
        assert kind in ("denied", "timeout", "limit", "killed", "error", "ok"), attack.name
        assert bool(rest) or kind in ("denied", "timeout", "ok"), attack.name
