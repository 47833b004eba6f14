"""What was learned can be seen, drawn, taught and forgotten, of a running supervisor and of what one saved."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from runvisor.actors.jail.probe import probe_jail
from runvisor.policies.scheduling.base import Ending, Outcome
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.features import FEATURES
from runvisor.policies.scheduling.hierarchical import HierarchicalScheduler
from runvisor.policies.scheduling.snapshot import Learner
from runvisor.supervisor.belief_file import BeliefFile
from runvisor.supervisor.client import Supervisor
from runvisor.supervisor.outcomes import OutcomeJournal
from runvisor.supervisor.prior_file import load_prior
from tests.supervisor.cli.commands import Command, document
from tests.supervisor.test_training import ARMS, journal

needs_jail = pytest.mark.skipif(not probe_jail("test").available, reason=probe_jail("test").detail)
CODE = "sum(n * n for n in range(100))"
FAMILY = family_of("python", CODE)


def known(count: int = 40) -> list[Outcome]:
    """Runs of the family of CODE: python/native is fast, wasm/cpython slow, and python/jit failed at last."""
    now = time.time()
    outcomes = []
    for number in range(count):
        at = now - count + number
        outcomes.append(Outcome("python/native", FAMILY, Ending.RAN, 0.002, 0.0, 10.0, at, features=(0.0,) * 6))
        outcomes.append(Outcome("wasm/cpython", FAMILY, Ending.RAN, 0.2, 0.0, 10.0, at, features=(0.0,) * 6))
    failed = [Outcome("python/jit", FAMILY, Ending.FAILED, 0.0, 0.0, 10.0, now) for _ in range(8)]
    return outcomes + failed


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands find what was saved, with nothing in it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "runvisor" / "policy"


def save(folder: Path, outcomes: Sequence[Outcome]) -> None:
    """Leave what a supervisor leaves that saw these outcomes."""
    wires = [outcome.to_wire() for outcome in outcomes]
    learner = Learner(HierarchicalScheduler(), epoch=1)
    learner.learn(wires, now=time.time())
    BeliefFile.of(folder).write(learner.publish())
    kept = OutcomeJournal(folder)
    kept.add(wires, time.time())
    kept.close()


def test_show_tells_what_is_believed_of_each_arm(command: Command, folder: Path) -> None:
    save(folder, known())
    status, out, err = command("policy", "show", "--family", FAMILY)
    assert status == 0, err
    native, wasm = (next(line for line in out.splitlines() if line.startswith(arm)) for arm in ("python/n", "wasm/c"))
    assert native.split()[1] == wasm.split()[1] == "40"
    status, out, _ = command("policy", "show", "--family", FAMILY, "--json")
    told = document(out)
    believed = {arm["arm"]: arm for arm in told["arms"]}
    assert (status, told["families"]) == (0, [FAMILY])
    assert 0.001 < believed["python/native"]["median_s"] < 0.004
    assert 0.1 < believed["wasm/cpython"]["median_s"] < 0.4
    assert believed["wasm/cpython"]["p95_s"] > believed["wasm/cpython"]["median_s"]
    assert believed["python/native"]["breaker"] == "closed"
    status, out, _ = command("policy", "show", "--json")
    broken = next(arm for arm in document(out)["arms"] if arm["arm"] == "python/jit")
    assert broken["breaker"] in ("open", "half open")
    assert broken["failure_chance"] > 0.1


def test_show_says_what_would_be_chosen_for_a_file_and_why(command: Command, folder: Path, tmp_path: Path) -> None:
    save(folder, known())
    file = tmp_path / "task.py"
    file.write_text(CODE)
    status, out, err = command("policy", "show", "--task", str(file))
    assert status == 0, err
    assert out.startswith("Chose python/native")
    assert "from 40 runs" in out
    rows = [line for line in out.splitlines() if line.startswith(("python/", "wasm/"))]
    assert rows[0].startswith("python/native ")
    (jit,) = (row for row in rows if row.startswith("python/jit "))
    assert "no numeric function" in jit
    status, out, _ = command("policy", "show", "--task", str(file), "--objective", "slo 1s", "--json")
    told = document(out)
    assert (status, told["arm"], told["family"]) == (0, "python/native", FAMILY)
    assert "more than 1000 ms" in told["objective"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("show",), "run some code first"),
        (("export",), "run some code first"),
        (("plot",), "run some code first"),
        (("show", "--task", "/no/such.py"), "cannot be read"),
        (("show", "--task", "x.py", "--family", "python:xs"), "a family of its own"),
        (("reset", "--json"), "--yes"),
    ],
)
def test_what_cannot_be_answered_is_bad_use_and_says_what_to_do(
    command: Command, folder: Path, arguments: tuple[str, ...], word: str
) -> None:
    status, out, err = command("policy", *arguments)
    assert status == 2
    assert word in out + err


def test_a_family_that_is_not_known_is_refused_with_those_that_are(command: Command, folder: Path) -> None:
    save(folder, known())
    status, _, err = command("policy", "show", "--family", "rust:xl")
    assert status == 2
    assert FAMILY in err


def test_plot_draws_choices_and_beliefs(command: Command, folder: Path, tmp_path: Path) -> None:
    save(folder, known())
    picture = tmp_path / "policy.png"
    status, out, err = command("policy", "plot", "--png", str(picture), "--slices", "10")
    assert status == 0, err
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] for line in lines if line and line[0] in ("python/native", "wasm/cpython", "python/jit")] == [
        ["python/native", "40"],
        ["wasm/cpython", "40"],
        ["python/jit", "8"],
    ]
    status, out, _ = command("policy", "plot", "--family", FAMILY, "--slices", "10", "--json")
    arms = {arm["arm"]: arm for arm in document(out)["arms"]}
    assert (status, sum(arms["python/native"]["choices"]), sum(arms["python/jit"]["lost"])) == (0, 40, 8)
    assert command("policy", "plot", "--family", "rust:xl")[0] == 2


def test_export_is_all_that_was_saved(command: Command, folder: Path) -> None:
    save(folder, known())
    status, out, _ = command("policy", "export")
    told = document(out)
    saved = BeliefFile.of(folder).read(dict)
    assert saved is not None
    assert (status, told["state"], told["prior"]) == (0, saved["state"], None)


def test_reset_forgets_what_it_was_told_to(command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(folder, known())
    for said in ("n\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        assert command("policy", "reset")[0] == 2, "nobody said yes"
    assert BeliefFile.of(folder).path.exists()
    status, out, _ = command("policy", "reset", "--yes", "--json")
    assert (status, document(out)["forgotten"]) == (0, ["beliefs"])
    assert not BeliefFile.of(folder).path.exists()
    assert len(OutcomeJournal(folder).read()) == len(known())
    assert command("policy", "reset", "--yes", "--journal", "--prior")[0] == 0
    assert OutcomeJournal(folder).read() == []


def test_a_prior_that_knows_more_is_installed_and_one_that_does_not_is_refused(command: Command, folder: Path) -> None:
    save(folder, journal(250, 12, signal=0.0, noise=1.0))
    status, out, _ = command("policy", "train", "--json")
    assert (status, document(out)["installed"], load_prior(folder)) == (0, False, None)
    OutcomeJournal(folder).clear()
    save(folder, journal())
    status, out, err = command("policy", "train")
    assert status == 0, err
    assert "Installed" in out
    assert "new families" in out
    prior = load_prior(folder)
    assert prior is not None
    assert set(prior.arms) == set(ARMS)
    status, out, _ = command("policy", "train", "--json")
    assert (status, document(out)["error"]["type"]) == (2, "TooFewOutcomes")
    assert "since the present prior was trained" in document(out)["error"]["message"]


def test_too_few_executions_are_an_error_that_says_how_many_are_missing(command: Command, folder: Path) -> None:
    save(folder, known())
    status, out, _ = command("policy", "train", "--json")
    error = document(out)["error"]
    assert (status, error["type"], error["families_needed"]) == (2, "TooFewOutcomes", 10)


@needs_jail
@pytest.mark.root
def test_a_running_supervisor_tells_what_it_learned_and_forgets_it(
    command: Command, supervisor: Supervisor, tmp_path: Path
) -> None:
    address = ("--address", ray.get_runtime_context().gcs_address)
    with Supervisor.start(principal="learner") as client:
        client.run(CODE, "python")
    file = tmp_path / "task.py"
    file.write_text(CODE)
    status, out, err = command("policy", "show", "--task", str(file), *address, "--json")
    told = document(out)
    assert status == 0, err
    assert told["family"] == FAMILY
    assert any(arm["samples"] for arm in told["candidates"])
    assert command("policy", "show", "--family", FAMILY, *address)[0] == 0
    assert FAMILY in document(command("policy", "export", *address)[1])["state"]["families"]
    assert command("policy", "reset", "--yes", *address)[0] == 0
    assert document(command("policy", "export", *address)[1])["state"]["families"] == {}


@needs_jail
@pytest.mark.root
def test_a_prior_that_is_installed_counts_in_a_running_supervisor(command: Command, supervisor: Supervisor) -> None:
    address = ("--address", ray.get_runtime_context().gcs_address)
    kept = OutcomeJournal(Path(supervisor.describe()["policy_folder"]))
    kept.clear()  # what other tests ran has nothing to do with what follows
    now = time.time()
    padding = (0.0,) * (len(FEATURES) - 2)  # as long as those of what this supervisor ran
    past = [replace(each, at=now - 600 + each.at, features=each.features + padding) for each in journal()]
    kept.add([each.to_wire() for each in past], now)
    kept.close()
    try:
        status, out, err = command("policy", "train", *address, "--json")
        assert (status, document(out)["installed"]) == (0, True), err
        assert set(document(command("policy", "export", *address)[1])["prior"]["arms"]) >= set(ARMS)
    finally:
        assert command("policy", "reset", "--yes", "--prior", "--journal", *address)[0] == 0
    assert document(command("policy", "export", *address)[1])["prior"] is None
