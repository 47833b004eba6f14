"""Which images there are, and who builds them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, cast

from runvisor.actors.wasm.images.manifest import Fact
from runvisor.policies.errors import ConfigError

RECIPES: Final[Mapping[str, str]] = {
    "cpython": "runvisor.actors.wasm.images.cpython",
    "quickjs": "runvisor.actors.wasm.images.quickjs",
}
"""The module that builds each image; it is a `Recipe`, and imported only when it is needed."""

Tell = Callable[[str, float], None]
"""Told what is being done, and how much of the whole is done by then, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a recipe gives."""

    files: Mapping[str, bytes]
    """By name; licences belong to them."""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """What whoever runs it needs to know."""


class Recipe(Protocol):
    """How one image is made: two functions of a module.

    A third, ``finish(tell)``, is called if it is there, after the image was built or
    found: for what is done once ahead, and may be done again.
    """

    def version(self) -> str:
        """Return text that differs whenever the image would: pinned packages, sources of ours, machine.

        Cheap, and imports nothing that is only needed for building.
        """
        ...

    def build(self, work: Path, tell: Tell) -> Built:
        """Make the image.

        Args:
            work: An empty folder, deleted afterwards.
            tell: See `Tell`.

        Raises:
            ConfigError: Something that it needs is not installed; says what.
            SpawnFailed: It could not be fetched or built; says why.
        """
        ...


def recipe(name: str) -> Recipe:
    """Return the recipe of an image.

    Raises:
        ConfigError: There is none of that name.
    """
    module = RECIPES.get(name)
    if module is None:
        raise ConfigError(f"there is no image {name}", "images", f"the images are {', '.join(sorted(RECIPES))}")
    return cast(Recipe, importlib.import_module(module))


def remedy(name: str) -> str:
    """Say in one line how to get an image.

    Example:
        >>> remedy("quickjs")
        'build it once: python -m runvisor.actors.wasm.images quickjs'
    """
    return f"build it once: python -m runvisor.actors.wasm.images {name}"
