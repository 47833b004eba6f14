"""``runvisor policy``: what the scheduler has learned; shown, drawn, taught and forgotten."""

from __future__ import annotations

import getpass
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import typer
from rich.text import Text

from runvisor.policies.errors import ConfigError
from runvisor.policies.scheduling.families import family_of
from runvisor.policies.scheduling.features import asked_by
from runvisor.policies.scheduling.hierarchical import FIRST_LOG_S
from runvisor.policies.scheduling.objective import Objective
from runvisor.policies.scheduling.prior import unpacked
from runvisor.supervisor.cli.output import console, notes, print_json, reserved_stdout, visible
from runvisor.supervisor.cli.policy_chart import draw, history_table, slices_that_fit
from runvisor.supervisor.cli.policy_source import Source, source_of
from runvisor.supervisor.cli.policy_table import beliefs_table, explained, training_table
from runvisor.supervisor.cli.run_code import read_source
from runvisor.supervisor.explaining import decide
from runvisor.supervisor.policy_account import account_of, families_of
from runvisor.supervisor.policy_history import history_of
from runvisor.supervisor.probing import unavailable_here
from runvisor.supervisor.request import AUTO, make_task
from runvisor.supervisor.training import MIN_GAIN, Training, train

policy = typer.Typer(
    help="What the scheduler has learned: show it, draw it, train its start, export or forget it.",
    no_args_is_help=True,
)

_FAMILIES: Final = 8
_Address: TypeAlias = Annotated[
    str | None, typer.Option(help="A Ray cluster whose supervisor to ask; default is what the last one here saved.")
]
_AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
_Family: TypeAlias = Annotated[str, typer.Option(help="One family of tasks, as show --task names it.")]


@policy.command()
def show(
    family: _Family = "",
    task: Annotated[Path | None, typer.Option(help="A file of code: what would be chosen for it, and why.")] = None,
    language: Annotated[str, typer.Option("--language", "-l", help="The language of --task, or auto.")] = AUTO,
    trust: Annotated[str, typer.Option(help="The trust of --task.")] = "untrusted",
    objective: Annotated[
        str | None, typer.Option(help="What --task is to make small: mean + 2*std, slo 100ms, ...")
    ] = None,
    address: _Address = None,
    as_json: _AsJson = False,
) -> None:
    """Show what is believed of each arm now, or what would be chosen for a file of code."""
    if task is not None and family:
        raise ConfigError("a task has a family of its own", "--family", "leave it out")
    with reserved_stdout(wanted=as_json):
        source = source_of(address)
        if task is not None:
            _show_task(source, task, language, trust, objective, as_json=as_json)
            return
        snapshot = source.snapshot
        known = families_of(snapshot)
        if family and family not in known:
            raise ConfigError(
                f"nothing is known of a family {family!r}", "--family", f"lately seen: {', '.join(known[:5]) or 'none'}"
            )
        account = account_of(snapshot, time.time(), family=family, recent=source.journal.read())
        if as_json:
            arms = [asdict(each) for each in account]
            print_json({"from": source.where, "family": family, "arms": arms, "families": known})
            return
        whose = f"family {family}" if family else "code that is new"
        console.print(Text(f"Beliefs about {whose}, from {source.where}", style="italic"))
        console.print(beliefs_table(account))
        if not family and known:
            shown = ", ".join(known[:_FAMILIES])
            more = f" and {len(known) - _FAMILIES} more (--json has all)" if len(known) > _FAMILIES else ""
            notes.print(Text(visible(f"families: {shown}{more}"), style="dim"))


@policy.command()
def plot(
    family: _Family = "",
    png: Annotated[Path | None, typer.Option(help="Write the chart here as well.")] = None,
    slices: Annotated[
        int | None, typer.Option(min=2, max=400, help="Into how many slices to cut the time; as many as fit.")
    ] = None,
    address: _Address = None,
    as_json: _AsJson = False,
) -> None:
    """Draw choices and beliefs over time, as the journal of past executions tells them."""
    with reserved_stdout(wanted=as_json):
        source = source_of(address)
        slices = slices or slices_that_fit(console.width)
        history = history_of(source.journal.read(), source.fresh(), family=family, slices=slices)
        if not history.arms:
            raise ConfigError(
                f"the journal holds no execution{f' of the family {family}' if family else ''}",
                str(source.folder),
                "run some code first" if not family else "`runvisor policy show` lists families",
            )
        if png is not None:
            _write(png, draw(history))
        if as_json:
            print_json({"from": source.where, **history.to_dict()})
        else:
            console.print(history_table(history))


@policy.command()
def reset(
    journal: Annotated[bool, typer.Option("--journal", help="Forget the journal of executions, too.")] = False,
    prior: Annotated[bool, typer.Option("--prior", help="Forget the trained prior, too.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    address: _Address = None,
    as_json: _AsJson = False,
) -> None:
    """Forget what was learned and start anew, from the trained prior if there is one."""
    with reserved_stdout(wanted=as_json):
        source = source_of(address)
        forgotten = ["beliefs", *(["journal"] if journal else []), *(["prior"] if prior else [])]
        if not yes:
            if as_json:
                raise ConfigError("a program is not asked", "--json", "pass --yes as well")
            _require_yes(f"Forget {', '.join(forgotten)} of {source.where}?")
        source.reset(journal=journal, prior=prior)
        if as_json:
            print_json({"from": source.where, "forgotten": forgotten})
        else:
            console.print(f"Forgotten: {', '.join(forgotten)} of {source.where}", highlight=False)


@policy.command()
def export(address: _Address = None) -> None:
    """Print all that is believed as one JSON document: the supervisor's own, with nothing left out."""
    with reserved_stdout(wanted=True):
        document = dict(source_of(address).snapshot)
        packed = document.pop("prior", b"")
        print_json({**document, "prior": unpacked(packed).to_wire() if packed else None})


@policy.command("train")
def train_prior(address: _Address = None, as_json: _AsJson = False) -> None:
    """Fit what to expect of new code on the journal, and install it if it beats what is expected now.

    Executions are held out twice: whole families, and the latest fifth. Nothing is
    installed unless the fitted prior is better on both.
    """
    with reserved_stdout(wanted=as_json):
        source = source_of(address)
        outcomes = source.journal.read()
        present = source.prior
        if present is not None:
            training = train(outcomes, present.log_mean_s, trained_until=present.trained_until)
        else:
            training = train(outcomes, lambda *_: FIRST_LOG_S)
        if training.is_better:
            source.install(training.prior)
        if as_json:
            print_json({"from": source.where, "installed": training.is_better, **_document(training)})
            return
        console.print(training_table(training))
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in training.left_out.items())
        counted = f"{training.model}, on {training.runs:,} runs of {training.families:,} families"
        notes.print(Text(f"{counted}{f'; left out: {left_out}' if left_out else ''}", style="dim"))
        if training.is_better:
            console.print(Text(f"Installed for {source.where}", style="green"))
        else:
            console.print(
                Text(f"Not installed: it is not better by {MIN_GAIN:.0%} on both, so the present prior stays", "yellow")
            )


def _show_task(source: Source, path: Path, language: str, trust: str, objective: str | None, *, as_json: bool) -> None:
    code, language = read_source(str(path), language)
    made, reason = make_task(code, language, trust=trust, label=path.name)
    wanted = Objective.parse(objective) if objective is not None else None
    decision = decide(
        made,
        source.scheduler,
        principal=getpass.getuser(),
        unavailable=source.unavailable if source.actor is not None else unavailable_here(),
        loads=source.loads,
        objective=wanted,
        language_reason=reason,
    )
    family = family_of(made.language, made.code, asked_by(made.inputs))
    if as_json:
        print_json({"from": source.where, "family": family, **decision.to_dict()})
        return
    console.print(explained(decision))
    notes.print(Text(f"family {family}, from {source.where}", style="dim"))


def _require_yes(question: str) -> None:
    try:
        has_agreed = typer.confirm(question, err=True)
    except typer.Abort:  # there is nobody to answer
        has_agreed = False
    if not has_agreed:
        notes.print("Nothing was forgotten; --yes does not ask")
        raise typer.Exit(2)


def _document(training: Training) -> dict[str, Any]:
    return {
        "model": training.model,
        "runs": training.runs,
        "families": training.families,
        "left_out": dict(training.left_out),
        "held_out": [
            {
                "what": comparison.held_out,
                "gain": comparison.gain,
                "errors": {who: asdict(error) for who, error in comparison.errors.items()},
            }
            for comparison in training.comparisons
        ],
    }


def _write(path: Path, picture: bytes | None) -> None:
    if picture is None:
        raise ConfigError("there is no matplotlib to draw with", "--png", "pip install 'runvisor[science]'")
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", "--png", "give another path") from None
