"""Builds images into the user's cache: ``python -m runvisor.actors.wasm.images [NAME...]``, all without names."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from runvisor.actors.wasm.images.recipes import RECIPES, recipe
from runvisor.actors.wasm.images.store import build_image, find_image
from runvisor.policies.errors import RunvisorError


def main(names: Sequence[str]) -> int:
    """Build the images of these names that are not there, and say so; returns the process's status."""
    console = Console(stderr=True)
    failures = 0
    for name in names or sorted(RECIPES):
        try:
            folder = find_image(name)
            began = time.monotonic()
            is_new = folder is None
            folder = _build(name, console)
            if not is_new:
                console.print(f"{name}: there already, in {folder}", soft_wrap=True, highlight=False)
                continue
        except RunvisorError as error:
            failures += 1
            console.print(f"{name}: {error}", soft_wrap=True, highlight=False, markup=False)
            continue
        size = sum(file.stat().st_size for file in folder.iterdir())
        took_s = time.monotonic() - began
        console.print(f"{name}: {size / 1e6:.1f} MB in {took_s:.0f} s, in {folder}", soft_wrap=True, highlight=False)
    return 1 if failures else 0


def _build(name: str, console: Console) -> Path:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{name}: starting", total=1.0)

        def tell(doing: str, done: float) -> None:
            progress.update(task, description=f"{name}: {doing}", completed=done)

        folder = build_image(name, tell)
        finish = getattr(recipe(name), "finish", None)
        if finish is not None:
            finish(tell)
        return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
