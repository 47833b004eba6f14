"""Arms: hard constraints, before any learning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runvisor.policies.permissions import Filesystem, Network, Permissions
from runvisor.policies.scheduling.arms import (
    ARMS,
    Arm,
    asked_beyond_defaults,
    exclusion,
    split_eligible,
    unfit_for_profile,
)
from runvisor.policies.trust import Grant, Trust
from tests.policies.test_permissions import permissions

languages = st.sampled_from(sorted({name for arm in ARMS for name in arm.languages}))
BY_NAME = {arm.name: arm for arm in ARMS}


def grant(trust: Trust = Trust.UNTRUSTED, **asked: Any) -> Grant:
    return Grant("p", trust, Permissions(**asked))


@given(languages, permissions, st.sampled_from(Trust), st.sets(st.sampled_from([*BY_NAME, "wasm", "ebpf", "python"])))
def test_an_eligible_arm_breaks_no_hard_constraint(
    language: str, asked: Permissions, trust: Trust, down: set[str]
) -> None:
    eligible, excluded = split_eligible(ARMS, language, Grant("p", trust, asked), dict.fromkeys(down, "it is down"))
    for arm in eligible:
        assert language in arm.languages
        assert trust >= arm.min_trust
        assert set(asked_beyond_defaults(asked)) <= arm.enforces
        assert not down & {arm.name, arm.runtime}
    assert {arm.name for arm in eligible} | set(excluded) == {a.name for a in ARMS if language in a.languages}
    assert all(excluded.values())


def test_every_language_that_is_run_has_an_arm() -> None:
    from runvisor.policies.language import LANGUAGES

    assert {name for arm in ARMS for name in arm.languages} == set(LANGUAGES)


def test_untrusted_programs_enter_the_kernel_only_if_the_operator_says_so() -> None:
    ebpf = BY_NAME["ebpf/record"]
    assert exclusion(ebpf, "c-record", grant(), {}) == "untrusted code may not run there (it takes verified)"
    assert exclusion(ebpf, "c-record", grant(), {}, allow_untrusted_bpf=True) is None
    assert exclusion(ebpf, "c-record", grant(Trust.VERIFIED), {}) is None


@pytest.mark.parametrize(
    ("arm", "asked", "reason"),
    [
        ("python/native", {"instructions": 1000}, "it cannot enforce instructions=1000"),
        ("python/native", {"processes": 2}, "it cannot enforce processes=2"),
        ("python/native", {"tools": ("search",)}, "it cannot enforce tools (search)"),
        ("wasm/module", {"cpu_s": 1.0}, "it cannot enforce cpu_s=1.0"),
        ("v8/isolate", {"filesystem": Filesystem(read=("/srv/**",))}, "it cannot enforce filesystem (/srv/**)"),
        ("v8/isolate", {"env": {"A": "1"}}, "it cannot enforce env (A)"),
    ],
)
def test_an_arm_that_cannot_enforce_something_asked_for_is_struck_out(
    arm: str, asked: dict[str, object], reason: str
) -> None:
    language = min(BY_NAME[arm].languages)
    assert exclusion(BY_NAME[arm], language, grant(Trust.TRUSTED, **asked), {}) == reason


def test_python_and_javascript_may_be_granted_hosts_and_python_files() -> None:
    hosts, files = Network(("example.com",)), Filesystem(read=("/srv/**",))
    for name in ("python/native", "python/jit"):
        asked = grant(Trust.VERIFIED, network=hosts, filesystem=files)
        assert exclusion(BY_NAME[name], "python", asked, {}) is None
    assert exclusion(BY_NAME["v8/isolate"], "javascript", grant(Trust.VERIFIED, network=hosts), {}) is None


def test_a_runtime_or_a_variant_that_cannot_run_here_is_struck_out_with_its_reason() -> None:
    arm = BY_NAME["wasm/module"]
    assert exclusion(arm, "wasm", grant(), {"wasm": "no engine"}) == "no engine"
    assert exclusion(arm, "wasm", grant(), {"wasm/module": "no compiler"}) == "no compiler"
    assert exclusion(arm, "wasm", grant(), {"wasm/record": "no compiler"}) is None


def test_an_arm_without_profiles_is_struck_out_for_a_task_that_asks_for_one() -> None:
    plain = Arm("wasm", "cpython", frozenset({"python"}), BY_NAME["wasm/module"].enforces)
    arms = (*ARMS, plain)
    eligible, excluded = split_eligible(arms, "python", grant(), unfit_for_profile(arms, "bare"))
    assert {arm.name for arm in eligible} == {"python/native", "python/jit"}
    assert "'bare'" in excluded["wasm/cpython"]
    assert plain in split_eligible(arms, "python", grant(), unfit_for_profile(arms, ""))[0]
