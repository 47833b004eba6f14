"""``runvisor top``: what runs just now, and what it does, as the kernel counts it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import ray
import typer
from ray.exceptions import RayError
from rich.live import Live

from runvisor.policies.errors import ConfigError
from runvisor.policies.running import Running, rates
from runvisor.supervisor.attach import running_supervisor
from runvisor.supervisor.cli.output import console, print_json, reserved_stdout
from runvisor.supervisor.cli.top_table import Snapshot, render

_MIN_INTERVAL_S = 0.1


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.")] = 1.0,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; default is your only one on this machine.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per look.")] = False,
) -> None:
    """Show the executions of a running supervisor, the busiest first; Ctrl-C ends it.

    Rates are per second since the last look, and over an execution's life at the
    first. They need a supervisor that was started with observability="kernel".
    """
    if interval < _MIN_INTERVAL_S:
        raise ConfigError(f"{interval:g} s is too short", "--interval", f"give at least {_MIN_INTERVAL_S:g}")
    with reserved_stdout(wanted=as_json):
        actor, found = running_supervisor(address)
        before: dict[str, Running] = {}
        if as_json or once:
            while True:
                snapshot = _look(actor, found, before)
                if as_json:
                    print_json(_document(snapshot))
                else:
                    console.print(render(snapshot))
                if once:
                    return
                before = snapshot.by_id()
                time.sleep(interval)
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                snapshot = _look(actor, found, before)
                live.update(render(snapshot), refresh=True)
                before = snapshot.by_id()
                time.sleep(interval)


def _look(actor: Any, address: str, before: dict[str, Running]) -> Snapshot:
    try:
        answer: Any = ray.get(actor.running.remote())
    except RayError as error:
        raise ConfigError(f"the supervisor has ended: {type(error).__name__}", "address", "start it again") from None
    running = [Running.from_wire(each) for pool in answer["pools"] for each in pool["executions"]]
    return Snapshot(
        counts=answer["observability"] == "kernel",
        rows=tuple((each, rates(each, before.get(each.id))) for each in running),
        uncounted={
            pool["runtime"]: pool["witness"] for pool in answer["pools"] if pool["witness"] not in ("", "kernel")
        },
        loads={pool["runtime"]: pool["load"] for pool in answer["pools"]},
        address=address,
    )


def _document(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "address": snapshot.address,
        "observability": "kernel" if snapshot.counts else "off",
        "not_counted": dict(snapshot.uncounted),
        "pools": {runtime: dict(load) for runtime, load in snapshot.loads.items()},
        "executions": [
            {**each.to_wire(), "rates": None if rate is None else asdict(rate)} for each, rate in snapshot.sorted()
        ],
    }
