"""The timeline of a plan as a picture: one bar for each run, one row for each step."""

from __future__ import annotations

import io
from typing import Final

from runvisor.supervisor.plan.outcome import PlanResult
from runvisor.supervisor.plan.signals import State

_COLOURS: Final = {
    "python": "#3b6ea5",
    "v8": "#c9a227",
    "wasm": "#6b4fa0",
    "ebpf": "#2e8b57",
    "": "#8a8f98",
}
_OTHER: Final = "#4a5560"
_FAILED: Final = "#b3261e"


def draw_timeline(result: PlanResult) -> bytes | None:
    """Return a PNG of when each step ran, coloured by runtime; None where matplotlib is missing.

    Drawn with the Agg canvas and without pyplot, so that it needs no display
    and is safe in any thread.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError:
        return None
    steps = list(result.steps)
    figure = Figure(figsize=(10, 1.2 + 0.34 * min(len(steps), 120)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seen: dict[str, str] = {}
    for row, step in enumerate(steps):
        for run in step.subtasks:
            if run.started_s is None or run.finished_s is None:
                continue
            runtime = run.result.runtime if run.result is not None else ""
            colour = _COLOURS.get(runtime, _OTHER)
            label = runtime if runtime in _COLOURS and runtime else "other"
            if run.state is State.FAILED:
                label, colour = "failed", _FAILED
            seen[label] = colour
            milliseconds = (run.started_s * 1e3, max(run.finished_s - run.started_s, 0.0) * 1e3)
            axes.broken_barh(
                [milliseconds], (row - 0.36, 0.72), color=colour, alpha=0.75, edgecolor="white", linewidth=0.4
            )
    axes.set_yticks(range(len(steps)), [step.step for step in steps], fontsize=9)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    axes.set_xlim(0, max(result.wall_s * 1e3, 1e-3))
    axes.set_xlabel("milliseconds since the plan started")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if seen:
        handles = [Patch(color=colour, label=name) for name, colour in sorted(seen.items())]
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(handles), frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()
