"""Choosing: hard constraints, then the policy, then the reasons."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.policies.errors import NoEligibleArm
from runvisor.policies.permissions import Filesystem, Permissions
from runvisor.policies.scheduling.arms import ARMS, exclusion
from runvisor.policies.scheduling.base import Ending, Outcome, Selector
from runvisor.policies.scheduling.decision import Decision
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.selection import choose
from runvisor.policies.trust import Grant, Trust
from tests.policies.scheduling.helpers import grant
from tests.policies.test_permissions import permissions

RECORD = "c-record"


def decide(
    language: str,
    given_: Grant,
    scheduler: Selector | None = None,
    unavailable: Mapping[str, str] | None = None,
    **other: Any,
) -> Decision:
    return choose(
        language,
        family_of(language, "x"),
        given_,
        ARMS,
        unavailable=unavailable or {},
        loads={},
        scheduler=scheduler or HierarchicalScheduler(),
        **{"now": 100.0, "draws": (), **other},
    )


def taught(fast: str, slow: str) -> HierarchicalScheduler:
    scheduler = HierarchicalScheduler()
    for lap in range(30):
        for arm, service_s in ((fast, 0.0001), (slow, 0.01)):
            scheduler.update(Outcome(arm, family_of(RECORD, "x"), Ending.RAN, service_s, 0.0, 5.0, float(lap)))
    return scheduler


def test_a_decision_explains_itself_in_sentences() -> None:
    decision = decide(RECORD, grant(Trust.VERIFIED), taught("ebpf/record", "wasm/record"))
    assert decision.arm == "ebpf/record"
    text = decision.explain()
    assert text.startswith("Chose ebpf/record: expected 0.1")
    assert "the lowest sum of expected time, deviation, waiting time and the price of failures. Against wasm" in text
    assert decision.table()[0].arm == "ebpf/record"
    document = decision.to_dict()
    assert {candidate["arm"] for candidate in document["candidates"]} == {"ebpf/record", "wasm/record"}
    assert all(candidate["samples"] == 30 for candidate in document["candidates"])


def test_a_decision_lists_what_was_struck_out_and_why() -> None:
    decision = decide(RECORD, grant(), taught("ebpf/record", "wasm/record"), language_reason="Language c-record: told.")
    assert decision.arm == "wasm/record"
    struck = {
        candidate.arm: candidate.excluded_because for candidate in decision.candidates if candidate.excluded_because
    }
    assert struck == {"ebpf/record": "untrusted code may not run there (it takes verified)"}
    assert decision.explain().endswith(
        "Struck out: ebpf/record (untrusted code may not run there (it takes verified)). Language c-record: told."
    )


@given(
    st.sampled_from(sorted({name for arm in ARMS for name in arm.languages})),
    permissions,
    st.sampled_from(Trust),
    st.sets(st.sampled_from([arm.name for arm in ARMS])),
    st.integers(0, 2**32),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_neither_learning_nor_exploring_ever_reaches_an_arm_that_is_struck_out(
    language: str, asked: Permissions, trust: Trust, down: set[str], seed: int, bpf: bool
) -> None:
    chance, scheduler = random.Random(seed), HierarchicalScheduler()
    for lap in range(60):  # whatever may not run looks perfect
        arm = chance.choice(ARMS)
        allowed = exclusion(arm, language, Grant("p", trust, asked), {}, allow_untrusted_bpf=bpf) is None
        service_s = 1.0 if allowed and arm.name not in down else 1e-6
        scheduler.update(Outcome(arm.name, family_of(language, "x"), Ending.RAN, service_s, 0.0, 5.0, float(lap)))
    unavailable = dict.fromkeys(down, "it is down")
    draws = [chance.gauss(0, 3) for _ in ARMS]
    grant_ = Grant("p", trust, asked)
    reasons = {arm: exclusion(arm, language, grant_, unavailable, allow_untrusted_bpf=bpf) for arm in ARMS}
    if all(reasons.values()):
        with pytest.raises(NoEligibleArm) as caught:
            decide(language, grant_, scheduler, unavailable, draws=draws, allow_untrusted_bpf=bpf)
        assert caught.value.details["excluded"] == {arm.name: reason for arm, reason in reasons.items()}
        return
    decision = decide(language, grant_, scheduler, unavailable, draws=draws, allow_untrusted_bpf=bpf)
    assert decision.arm in {arm.name for arm, reason in reasons.items() if reason is None}


@pytest.mark.parametrize(
    ("language", "given_", "unavailable", "remedy"),
    [
        ("python", grant(cpu_s=1.0, instructions=9), {}, "leave out instructions=9"),
        (RECORD, grant(), {"wasm": "no engine"}, "make wasm/record available on this machine"),
        (RECORD, grant(), {"wasm": "x", "ebpf": "y"}, "make wasm/record available on this machine"),
        (RECORD, grant(cpu_s=1.0), {"wasm": "x"}, "leave out cpu_s=1.0 and make wasm/record available on this machine"),
        (
            "javascript",
            grant(filesystem=Filesystem(read=("/srv/**",))),
            {},
            "leave out filesystem (/srv/**)",
        ),
        (
            "cobol",
            grant(),
            {},
            "the arms here run c, c-packet, c-record, component, cpp, go, javascript, python, rust, typescript, wasm, "
            "wat, zig",
        ),
    ],
)
def test_without_an_arm_every_reason_is_given_and_the_shortest_way_out(
    language: str, given_: Grant, unavailable: dict[str, str], remedy: str
) -> None:
    with pytest.raises(NoEligibleArm) as caught:
        decide(language, given_, unavailable=unavailable)
    error = caught.value
    assert error.remedy == remedy
    assert error.where == language
    assert set(error.details["excluded"]) == {arm.name for arm in ARMS}
    assert all(error.details["excluded"].values())
    assert error.details["excluded"]["wasm/module"] == f"it does not run {language}"


def test_trust_is_the_remedy_when_only_trust_is_missing() -> None:
    ebpf_only = tuple(arm for arm in ARMS if arm.runtime == "ebpf")
    with pytest.raises(NoEligibleArm, match="run it as verified code"):
        choose(
            RECORD,
            "f",
            grant(),
            ebpf_only,
            unavailable={},
            loads={},
            scheduler=HierarchicalScheduler(),
            now=0.0,
            draws=(),
        )


def test_the_operator_may_open_the_kernel_to_untrusted_records() -> None:
    scheduler = taught("ebpf/record", "wasm/record")
    assert decide(RECORD, grant(), scheduler, allow_untrusted_bpf=True).arm == "ebpf/record"
