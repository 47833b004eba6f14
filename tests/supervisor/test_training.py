"""A prior that knows more than the present one is found better, and one that knows nothing is not."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from runvisor.policies.errors import TooFewOutcomes
from runvisor.policies.scheduling.base import Ending, Outcome
from runvisor.policies.scheduling.prior import TrainedPrior
from runvisor.supervisor.prior_fit import KINDS, Run, fit
from runvisor.supervisor.training import ARM_MEAN, PRESENT, SCHEDULER, TRAINED, Training, train

ARMS = ("python/native", "python/jit", "wasm/cpython")


def journal(count: int = 400, families: int = 20, *, signal: float = 1.0, noise: float = 0.2) -> list[Outcome]:
    """Executions whose time depends on features and imports as far as ``signal`` says, on each arm otherwise."""
    chance = random.Random(7)
    kinds = [
        (f"python:xs:l{index}:{chance.choice(('numpy', 'math', 're'))}", (chance.uniform(0, 4), chance.uniform(0, 4)))
        for index in range(families)
    ]
    outcomes = []
    for at in range(count):
        family, features = chance.choice(kinds)
        place = chance.randrange(len(ARMS))
        log_s = -6.0 + 0.5 * place + signal * (0.7 * features[0] * (1 + place) + 1.5 * ("numpy" in family))
        service_s = math.exp(chance.gauss(log_s, noise))
        outcomes.append(Outcome(ARMS[place], family, Ending.RAN, service_s, 0.0, 1e6, float(at), features=features))
    return outcomes


def nothing_known(arm: str, family: str, features: Sequence[float]) -> float | None:
    return math.log(0.005)


@pytest.fixture(scope="module")
def trained() -> Training:
    return train(journal(), nothing_known)


def test_what_features_tell_is_learned_and_held_out_executions_prove_it(trained: Training) -> None:
    assert trained.is_better
    assert [comparison.held_out for comparison in trained.comparisons] == ["new families", "the latest"]
    for comparison in trained.comparisons:
        errors = comparison.errors
        assert {TRAINED, PRESENT, ARM_MEAN} <= set(errors)
        assert errors[TRAINED].rmse < 0.5 * errors[ARM_MEAN].rmse < errors[PRESENT].rmse
        assert 1.0 <= errors[TRAINED].ratio < errors[ARM_MEAN].ratio


def test_what_the_scheduler_learns_by_itself_is_no_easy_rival(trained: Training) -> None:
    by_family, _ = trained.comparisons
    errors = by_family.errors
    assert errors[TRAINED].rmse < errors[SCHEDULER].rmse < errors[ARM_MEAN].rmse


def test_the_prior_orders_arms_by_what_they_do_on_code_that_it_never_saw(trained: Training) -> None:
    def expected(arm: str, work: float) -> float:
        value = trained.prior.log_mean_s(arm, "python:xs:l99:math", (work, 2.0))
        assert value is not None
        return value

    assert expected(ARMS[0], 3.5) < expected(ARMS[1], 3.5) < expected(ARMS[2], 3.5)
    assert expected(ARMS[2], 0.5) < expected(ARMS[2], 3.5)
    assert trained.prior.trained_until == 399.0


def test_where_features_tell_nothing_the_fit_is_refused() -> None:
    assert not train(journal(signal=0.0, noise=1.0), nothing_known).is_better


def test_a_present_prior_that_is_as_good_stays(trained: Training) -> None:
    again = train(journal(), trained.prior.log_mean_s)
    assert not again.is_better


def test_a_trained_prior_is_judged_by_what_came_after_it(trained: Training) -> None:
    later = [each.moved_to(each.at + 400) for each in journal()]
    again = train([*journal(), *later], trained.prior.log_mean_s, trained_until=trained.prior.trained_until)
    by_family, by_time = again.comparisons
    assert PRESENT not in by_family.errors, "it was fitted on some of those families"
    assert by_time.errors[PRESENT].rmse < by_time.errors[ARM_MEAN].rmse
    with pytest.raises(TooFewOutcomes, match="since the present prior was trained"):
        train(journal(), trained.prior.log_mean_s, trained_until=trained.prior.trained_until)


@pytest.mark.parametrize(("count", "families"), [(0, 20), (50, 20), (400, 4)])
def test_too_few_executions_are_an_error_that_says_how_many_more(count: int, families: int) -> None:
    with pytest.raises(TooFewOutcomes, match=r"run \d+ more (runs|kinds of code)") as raised:
        train(journal(count, families), nothing_known)
    assert raised.value.details["runs_needed"] == 200


def test_what_says_nothing_of_service_time_is_left_out() -> None:
    odd = [
        Outcome(ARMS[0], "python:xs:odd", Ending.FAILED, 9.0, 0.0, 10.0, 1.0, features=(1.0, 1.0)),
        Outcome(ARMS[0], "python:xs:odd", Ending.RAN, 9.0, 0.0, 10.0, 2.0, True, (1.0, 1.0)),
        Outcome(ARMS[0], "python:xs:odd", Ending.RAN, 9.0, 0.0, 10.0, 3.0),
        Outcome("v8/isolate", "javascript:xs", Ending.RAN, 9.0, 0.0, 10.0, 4.0, features=(1.0, 1.0)),
    ]
    left_out = train([*odd, *journal(300, 12)], nothing_known).left_out
    reasons = ("the runtime failed", "cold start", "features of another version", "arm with few runs")
    assert [left_out[reason] for reason in reasons] == [1, 1, 1, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_answers_as_scikit_learn_does(kind: str) -> None:
    from runvisor.supervisor import prior_fit

    chance = random.Random(3)
    runs = []
    for index in range(120):
        features = (chance.randrange(64) / 8, chance.randrange(64) / 8)  # exact in the 32 bits that its trees use
        log_s = math.sin(features[0]) + features[1] + (index % 3 == 0)
        runs.append(Run("a/b", f"python:{'yes' if index % 3 == 0 else 'no'}", features, log_s, float(index), False))
    prior = TrainedPrior.from_wire(fit(runs, kind).to_wire())
    rows = prior_fit.rows_of(runs, ["no", "yes"])
    theirs = prior_fit.estimator_of(kind).fit(rows, [run.log_s for run in runs]).predict(rows)
    for run, expected in zip(runs, theirs, strict=True):
        answer = prior.log_mean_s(run.arm, run.family, run.features)
        assert answer is not None
        assert abs(answer - min(max(expected, prior.arms["a/b"].least), prior.arms["a/b"].most)) < 0.05
