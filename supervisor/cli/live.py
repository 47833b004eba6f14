"""A guest's output on the terminal while it still runs."""

from __future__ import annotations

from dataclasses import replace

from rich.text import Text

from runvisor.policies.result import Result
from runvisor.supervisor.cli.output import console, notes, print_result, visible
from runvisor.supervisor.execution import Output


class LiveOutput:
    """Prints output as it comes, and then the result without it.

    The guest wrote it: shown as text, with control characters made visible.
    """

    def __init__(self) -> None:
        self._is_mid_line = False

    def __call__(self, output: Output) -> None:
        """Print one piece."""
        target, style = (console, "") if output.stream == "stdout" else (notes, "yellow")
        target.print(Text(visible(output.text), style=style), end="", soft_wrap=True)
        if output.stream == "stdout":
            self._is_mid_line = not output.text.endswith("\n")

    def finish(self, result: Result) -> None:
        """Print the value or error, and how it ran."""
        if self._is_mid_line:
            console.print()
            self._is_mid_line = False
        print_result(replace(result, stdout="", stderr=""))
