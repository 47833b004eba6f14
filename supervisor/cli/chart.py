"""Bars: the chart of an observation, in a terminal and as a picture."""

from __future__ import annotations

import io
from typing import Final

from rich.table import Table
from rich.text import Text

from runvisor.policies.observations import ObservedTable, shown
from runvisor.supervisor.cli.output import visible

_MAX_BARS: Final = 30
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_LABEL: Final = 60


def bar_table(observed: ObservedTable, width: int = 40) -> Table:
    """Return the longest bars, or a whole histogram, for a terminal.

    Args:
        observed: The table.
        width: Of the longest bar, in characters.
    """
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=_LABEL)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    bars = observed.bars()
    longest = max((length for _, length in bars), default=0.0)
    kind = observed.bar_kind
    for label, length in bars[: len(bars) if observed.is_histogram else _MAX_BARS]:
        value = Text(shown(length, kind), style="dim")
        table.add_row(Text(visible(label)), Text(bar(length / longest if longest else 0.0, width), "cyan"), value)
    return table


def bar(part: float, width: int) -> str:
    """Return a bar of a part of a width, to an eighth of a character.

    Example:
        >>> bar(0.5, 5), bar(1.0, 3), bar(0.0, 3)
        ('██▌', '███', '')
    """
    eighths = round(part * width * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def draw(observed: ObservedTable) -> bytes | None:
    """Return the same as a PNG; None where matplotlib is missing.

    Drawn with the Agg canvas and without pyplot, so that it needs no display
    and is safe in any thread.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    bars = observed.bars()
    bars = bars if observed.is_histogram else bars[:_MAX_BARS]
    figure = Figure(figsize=(9, 1.4 + 0.26 * len(bars)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # "$" would begin a formula: the labels are chosen by whoever was observed.
    labels = [ascii(label)[1:-1].replace("$", r"\$")[-_LABEL:] for label, _ in bars]
    axes.barh(range(len(bars)), [length for _, length in bars], color="#3b6ea5", height=0.72)
    axes.set_yticks(range(len(bars)), labels, fontsize=8, family="monospace")
    axes.invert_yaxis()
    axes.set_xlabel(observed.bar_name)
    axes.set_title(f"{observed.what} of process {observed.pid}, {shown(observed.duration_s, 'seconds')}", fontsize=10)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()
