"""Are the scheduler's choices good on real executions? Record, replay, and run live.

``python -m benchmarks.scheduler.real record`` runs the workload on every arm and
writes a recording; ``replay`` compares policies on it; ``live`` loads a real
supervisor. Needs root, both interpreter images (``scripts/build-images``) and bcc;
arms that are missing are left out. Recording wants a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.measure import RESULTS, machine
from benchmarks.scheduler.comparison import Interval
from benchmarks.scheduler.real.comparison import Comparison, compare
from benchmarks.scheduler.real.live import HANDLES, LEARNED, PHASES, POLICIES, run_live
from benchmarks.scheduler.real.live_figures import live_figures
from benchmarks.scheduler.real.plots import plot_comparison, plot_live
from benchmarks.scheduler.real.recorder import record
from benchmarks.scheduler.real.recording import Recording
from benchmarks.scheduler.real.traces import REQUESTS, SETTINGS
from benchmarks.scheduler.real.workload import PROGRAMS

RECORDING: Final = RESULTS / "scheduler-real-recording.msgpack"
REPLAY: Final = "scheduler-real-replay"
LIVE: Final = "scheduler-real-live"
_WIDTH: Final = 200
"""Of tables that go to a file."""
_COLUMNS: Final = (
    ("relative_regret", "regret", 3, 1.0),
    ("held_out_regret", "held out", 3, 1.0),
    ("closed", "gap closed", 2, 1.0),
    ("closed_to_table", "of the table's", 2, 1.0),
    ("cost_ms", "cost ms", 1, 1.0),
    ("p50_ms", "p50 ms", 1, 1.0),
    ("p99_ms", "p99 ms", 0, 1.0),
    ("slo_missed", "SLO missed %", 2, 100.0),
    ("best", "best arm %", 0, 100.0),
    ("adapted_after", "adapted after", 0, 1.0),
    ("lost", "lost", 1, 1.0),
)


def _record(given: argparse.Namespace, console: Console) -> None:
    part = given.recording.with_suffix(".part")
    with Progress(console=console) as progress:
        bar = progress.add_task("starting")

        def told(what: str, done: int, of: int) -> None:
            progress.update(bar, description=what, completed=done, total=of)

        recording = record(
            list(PROGRAMS.values()), runs=given.runs, seed=given.seed, part=part, most_s=given.minutes * 60, told=told
        )
    recording.save(given.recording)
    part.unlink()
    facts = {
        "runs": len(recording.runs),
        "rounds": recording.about["rounds"],
        "failed": sum(run.failed for run in recording.runs),
        "cold": sum(run.cold for run in recording.runs),
        "bytes": given.recording.stat().st_size,
    }
    _out(given, console, facts, f"{facts['runs']} runs in {facts['bytes']} bytes: {given.recording.name}; {facts}")


def _replay(given: argparse.Namespace, console: Console) -> None:
    recorded = Recording.load(given.recording).about
    with Progress(console=console) as progress:
        bar = progress.add_task("replaying")
        comparison = compare(
            given.recording,
            seeds=given.seeds,
            requests=given.requests,
            handles=given.handles,
            settings=given.setting,
            policies=given.policy,
            told=lambda done, of: progress.update(bar, completed=done, total=of),
        )
    summaries = {setting: comparison.summary(setting) for setting in comparison.figures}
    bars = [{"bar": bar, "measured": text, "met": met} for bar, text, met in comparison.bars()]
    document = {
        "question": "scheduler on real executions, replayed",
        **machine(),
        "recorded": {name: recorded[name] for name in ("cpu", "cores", "commit", "at", "rounds", "load_average")},
        "seeds": given.seeds,
        "requests": given.requests,
        "handles": given.handles,
        "programs": comparison.programs,
        "contested": comparison.contested,
        "rules": {setting: comparison.best_rule(setting) for setting in comparison.figures},
        "bars": bars,
        "settings": {
            setting: {policy: {name: _pair(each) for name, each in row.items()} for policy, row in rows.items()}
            for setting, rows in summaries.items()
        },
    }
    if not given.json:
        for setting, rows in summaries.items():
            console.print(_table(f"{setting} (rule: {comparison.best_rule(setting)})", rows))
        _print_bars(console, comparison)
    _write(given, console, document, REPLAY)
    if not given.dry:
        plot_comparison(summaries, RESULTS / f"{REPLAY}.svg")


def _live(given: argparse.Namespace, console: Console) -> None:
    runs = []
    for handles in given.handles or HANDLES:
        for policy in given.policy or POLICIES:
            if policy != LEARNED and handles != max(given.handles or HANDLES):
                continue  # the others are there to compare with, once
            run = run_live(
                policy,
                handles=handles,
                phase_s=given.seconds,
                rate_per_s=given.rate,
                seed=given.seed,
                told=lambda phase, who=(policy, handles): given.json or console.print(f"{who}: {phase}"),
            )
            runs.append(run)
    rows = [live_figures(run) for run in runs]
    if not given.json:
        table = Table(
            "policy", "handles", *(f"{phase}: p50 / p99 ms" for phase in PHASES), "failed", "lost", "queue", "swing"
        )
        for row in rows:
            phases = row["phases"]
            table.add_row(
                row["policy"],
                str(row["handles"]),
                *(f"{phases[name]['p50_ms']:.0f} / {phases[name]['p99_ms']:.0f}" for name in PHASES),
                f"{sum(each['failed'] for each in phases.values()):.0f}",
                f"{phases['broken arm']['lost']:.0f}",
                f"{row['longest_queue']} ({row['mean_queue']:.2f})",
                f"{row['swing']:.2f}",
            )
        console.print(table)
    document = {
        "question": "scheduler under live load",
        **machine(),
        "phase_s": given.seconds,
        "rate_per_s": given.rate,
        "seed": given.seed,
        "runs": rows,
    }
    _write(given, console, document, LIVE)
    if not given.dry:
        plot_live(runs, RESULTS / f"{LIVE}.svg")


def _table(title: str, rows: dict[str, dict[str, Interval]]) -> Table:
    shown = [column for column in _COLUMNS if any(column[0] in row for row in rows.values())]
    table = Table("policy", *(title for _, title, _, _ in shown), title=title)
    for policy, row in rows.items():
        cells = [
            f"{row[name].mean * scale:.{digits}f} ± {row[name].half * scale:.{digits}f}" if name in row else ""
            for name, _, digits, scale in shown
        ]
        table.add_row(policy, *cells)
    return table


def _print_bars(console: Console, comparison: Comparison) -> None:
    for bar, text, met in comparison.bars():
        console.print(f"{'met   ' if met else 'MISSED'}  {bar}: {text}")


def _pair(interval: Interval) -> list[float | None]:
    """Return a mean and half its interval, for JSON, which knows finite numbers only."""
    return [round(value, 6) if math.isfinite(value) else None for value in (interval.mean, interval.half)]


def _write(given: argparse.Namespace, console: Console, document: dict[str, Any], name: str) -> None:
    if not given.dry:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    where = "" if given.dry else f"written to benchmarks/results/{name}.json and .svg"
    _out(given, console, document, where)


def _out(given: argparse.Namespace, console: Console, document: dict[str, Any], text: str) -> None:
    if given.json:
        print(json.dumps(document))
    elif text:
        console.print(text)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scheduler.real", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    commands = parser.add_subparsers(required=True)
    recorder = commands.add_parser("record", help="run every program on every arm that takes it")
    recorder.add_argument("--runs", type=int, default=300, help="of each program on each arm, without noise")
    recorder.add_argument("--minutes", type=float, default=12.0, help="when to stop with fewer runs")
    recorder.add_argument("--seed", type=int, default=1)
    recorder.set_defaults(do=_record)
    replayer = commands.add_parser("replay", help="compare policies on a recording")
    replayer.add_argument("--seeds", type=int, default=20)
    replayer.add_argument("--requests", type=int, default=REQUESTS)
    replayer.add_argument("--handles", type=int, default=1)
    replayer.add_argument("--setting", action="append", default=[], choices=[each.name for each in SETTINGS])
    replayer.add_argument("--policy", action="append", default=[])
    replayer.set_defaults(do=_replay)
    live = commands.add_parser("live", help="load a real supervisor and disturb it")
    live.add_argument("--handles", type=int, action="append", default=[])
    live.add_argument("--policy", action="append", default=[], choices=list(POLICIES))
    live.add_argument("--seconds", type=float, default=10.0, help="of each phase")
    live.add_argument("--rate", type=float, default=30.0, help="requests a second")
    live.add_argument("--seed", type=int, default=1)
    live.set_defaults(do=_live)
    for each in (recorder, replayer):
        each.add_argument("--recording", type=Path, default=RECORDING)
    for each in (replayer, live):
        each.add_argument("--dry", action="store_true", help="write no results")
    given = parser.parse_args()
    began = time.monotonic()
    console = Console(stderr=given.json)
    if not console.is_terminal:
        console.width = _WIDTH
    given.do(given, console)
    console.print(f"took {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
