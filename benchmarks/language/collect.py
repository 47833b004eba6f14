"""Gather windows of source from packages: ``python -m benchmarks.language.collect [--folder F]``.

Packages go to the folder and stay there, so that a second run fetches nothing; no code of theirs runs.
The windows go to ``windows.jsonl.xz`` beside them: language, kind (file or fence), repository, side, text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import random
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import track

from benchmarks.language.registries import Debian, archive_of, files_in, licence_of, node_packages, version_of, wheels
from benchmarks.language.sources import REGISTRIES, SIDES, side_of
from benchmarks.language.windows import cut, fences, language_of, text_of

FOLDER: Final = Path(tempfile.gettempdir()) / "runvisor-language"
_FILES: Final = {"train": 120, "tune": 40, "test": 40}
"""Files of a language that one repository may give, by its side."""
_WINDOWS: Final = {"train": 6, "tune": 3, "test": 3}
"""Windows that one file may give."""
_OF_THE_RARE: Final = 12
"""The same in languages of which few repositories are to be had."""
_RARE: Final = frozenset(("wat", "zig", "sql", "typescript"))
_FENCES: Final = 60
"""Fenced blocks of a language that one repository may give."""
_BATCH: Final = 20
"""Packages asked for at once; if one of them is not to be had, each is asked for alone."""
_LONG: Final = 20
"""Characters of a line that is hardly the same in two repositories by chance."""


@dataclass(frozen=True)
class Window:
    """A few lines of a known language."""

    language: str
    kind: str
    """``file`` or ``fence``."""
    repository: str
    side: str
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    archives = _fetch(folder)
    windows = list(_apart(_gather(archives)))
    with lzma.open(folder / "windows.jsonl.xz", "wt", preset=1) as out:
        out.writelines(json.dumps(asdict(window)) + "\n" for window in windows)
    packages = {
        line: [[registry, version_of(path), licence_of(registry, path)] for registry, path in paths]
        for line, paths in archives.items()
    }
    (folder / "packages.json").write_text(json.dumps(packages, indent=1))
    table = Counter((window.language, window.kind, window.side) for window in windows)
    for key in sorted(table):
        Console().print(*key, table[key])


def load(folder: Path) -> list[Window]:
    """Return the windows that `main` wrote."""
    with lzma.open(folder / "windows.jsonl.xz", "rt") as lines:
        return [Window(**json.loads(line)) for line in lines]


def _fetch(folder: Path) -> dict[str, list[tuple[str, Path]]]:
    """Fetch what is not there yet; return the archives of each repository with their registries."""
    debian = Debian(folder)
    fetch: dict[str, Callable[[Sequence[str], Path], None]] = {
        "debian-source": debian.sources,
        "debian": debian.packages,
        "pypi": wheels,
        "npm": node_packages,
    }
    found: dict[str, list[tuple[str, Path]]] = {}
    for registry, lines in REGISTRIES.items():
        place = folder / "archives" / registry
        place.mkdir(parents=True, exist_ok=True)
        wanted = [name for line in lines for name in line.split("+") if not archive_of(registry, name, place)]
        for start in track(range(0, len(wanted), _BATCH), description=registry):
            batch = wanted[start : start + _BATCH]
            try:
                fetch[registry](batch, place)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
                for name in batch:
                    with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
                        fetch[registry]([name], place)
        for line in lines:
            for name in line.split("+"):
                if archive := archive_of(registry, name, place):
                    found.setdefault(line, []).append((registry, archive))
                else:
                    Console().print(f"{registry} does not give {name}")
    return found


def _gather(archives: dict[str, list[tuple[str, Path]]]) -> Iterator[Window]:
    for line, paths in track(archives.items(), description="cutting"):
        chance = random.Random(line)
        side = side_of(line)
        by_language: dict[str, list[str]] = defaultdict(list)
        prose: list[str] = []
        for _, path in paths:
            for name, data in files_in(path):
                language = language_of(name, data)
                text = text_of(data) if language else ""
                if name.endswith(".dist-info/METADATA"):
                    prose.append(data.decode("utf-8", "replace"))
                if language == "text":
                    prose.append(text)
                if text:
                    by_language[_within_ziglang(language, name)].append(text)
        if "cpp" in by_language:
            by_language["c"] = [text for text in by_language["c"] if "::" not in text and "class " not in text]
            if len(by_language["cpp"]) > 3:  # its headers may be of either
                del by_language["c"]
        for language, texts in sorted(by_language.items()):
            chance.shuffle(texts)
            for text in texts[: _FILES[side]]:
                count = _OF_THE_RARE if language in _RARE else _WINDOWS[side]
                for window in cut(_unfenced(text) if language == "text" else text, language, count, chance):
                    yield Window(language, "file", line, side, window)
        blocks: dict[str, list[str]] = defaultdict(list)
        for text in prose:
            for language, code in fences(text):
                blocks[language].append(code)
        for language, codes in sorted(blocks.items()):
            codes = sorted(set(codes))
            chance.shuffle(codes)
            for code in codes[:_FENCES]:
                yield Window(language, "fence", line, side, code)


def _within_ziglang(language: str, name: str) -> str:
    """Leave out the C and C++ that the Zig compiler carries: headers of many systems."""
    return "" if name.startswith("ziglang/") and language in ("c", "cpp") else language


def _unfenced(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _apart(windows: Iterator[Window]) -> Iterator[Window]:
    """Leave out tuning and test windows most of whose longer lines are in the training as well."""
    held = list(windows)
    seen = {
        hashlib.blake2b(line.strip().encode(), digest_size=8).digest()
        for window in held
        if window.side == "train"
        for line in window.text.split("\n")
        if len(line.strip()) >= _LONG
    }
    texts: set[str] = set()
    for window in held:
        if window.text in texts or not window.language:
            continue
        texts.add(window.text)
        long = [line.strip() for line in window.text.split("\n") if len(line.strip()) >= _LONG]
        known = sum(hashlib.blake2b(line.encode(), digest_size=8).digest() in seen for line in long)
        if window.side == "train" or not long or known <= len(long) / 2:
            yield window


assert set(_FILES) == set(SIDES)

if __name__ == "__main__":
    main()
