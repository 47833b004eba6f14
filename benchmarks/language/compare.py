"""How often is the language of a snippet told, and how fast, beside pygments and magika?

``python -m benchmarks.language.compare [--folder F] [--with-magika]``, after `collect`. Only windows
and fenced blocks of repositories that the model has not seen. magika is installed into a virtual
environment that goes when the run ends.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import subprocess
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from pygments.lexers import guess_lexer
from pygments.util import ClassNotFound

from benchmarks.language.collect import FOLDER, Window, load
from benchmarks.language.windows import ISSUE_LANGUAGES
from benchmarks.measure import interleave, report, summarise, timed
from runvisor.policies.errors import UnknownLanguage
from runvisor.policies.language import detect

_ROUNDS: Final = 40
_BURST: Final = 25
_THRESHOLDS: Final = (0.7, 0.8, 0.9, 0.95)
_MERGED: Final = {"typescript": "javascript", "cpp": "c"}
_DOCS: Final = Path(__file__).parents[2] / "docs"
_EBPF: Final = re.compile(r"^```c\n(.*?\b(on_record|on_packet|on_xdp)\s*\(.*?)^```", re.MULTILINE | re.DOTALL)

_PYGMENTS: Final[dict[str, str]] = {
    "js": "javascript",
    "ts": "typescript",
    "python3": "python",
    "wast": "wat",
    "psql": "sql",
    "postgresql": "sql",
    "plpgsql": "sql",
    "mysql": "sql",
    "sqlite3": "sql",
    "transact-sql": "sql",
    "console": "bash",
    "shell": "bash",
    "json-object": "json",
}
_MAGIKA: Final[dict[str, str]] = {"shell": "bash", "asm": "", "jsonl": "json", "h": "c"}
_MAGIKA_SCRIPT: Final = """
import json, sys, time
from magika import Magika
magika = Magika()
magika.identify_bytes(b"x = 1")
out = []
for text in json.load(open(sys.argv[1])):
    data = text.encode("utf-8", "replace")
    began = time.perf_counter()
    found = magika.identify_bytes(data)
    took = time.perf_counter() - began
    out.append([found.dl.label if hasattr(found, "dl") else found.prediction.dl.label, found.score, took])
json.dump(out, sys.stdout)
"""

Answer = tuple[str, float]
"""A language, or "", and how sure."""


@dataclass(frozen=True)
class Score:
    """How one contender did on one set."""

    contender: str
    data: str
    samples: int
    strict: float
    """Right, over all samples."""
    merged: float
    """The same if JavaScript and TypeScript count as one, C and C++ as well."""
    strict_by_language: float
    """Right, as the mean of the languages' shares."""
    merged_by_language: float


def ours(text: str) -> Answer:
    """Return what `detect` says, also in its error."""
    try:
        guess = detect(text)
    except UnknownLanguage as error:
        candidates = error.details.get("candidates") or []
        seems = error.details.get("seems", "")
        if candidates:
            return candidates[0][0], candidates[0][1]
        return seems, 0.99 if seems else 0.0
    return {"c-record": "c", "c-packet": "c"}.get(guess.language, guess.language), guess.confidence


def pygments(text: str) -> Answer:
    """Return what pygments' lexers guess."""
    try:
        alias = guess_lexer(text).aliases[0]
    except (ClassNotFound, IndexError):
        return "", 0.0
    return _PYGMENTS.get(alias, alias), 1.0


def magika(texts: Sequence[str]) -> tuple[list[Answer], list[float]]:
    """Return magika's answers and the seconds that each took, from an environment of its own."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        python = str(place / "venv" / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "magika"], check=True)
        (place / "texts.json").write_text(json.dumps(texts))
        (place / "run.py").write_text(_MAGIKA_SCRIPT)
        done = subprocess.run([python, "run.py", "texts.json"], cwd=place, check=True, capture_output=True, text=True)
    answers: list[tuple[str, float, float]] = json.loads(done.stdout)
    return [(_MAGIKA.get(label, label), score) for label, score, _ in answers], [took for *_, took in answers]


def score(contender: str, data: str, windows: Sequence[Window], answers: Sequence[Answer]) -> Score:
    """Count what is right."""
    strict = [window.language == answer[0] for window, answer in zip(windows, answers, strict=True)]
    merged = [_same(window.language, answer[0]) for window, answer in zip(windows, answers, strict=True)]

    def by_language(right: Sequence[bool]) -> float:
        found: dict[str, list[bool]] = {}
        for window, is_right in zip(windows, right, strict=True):
            found.setdefault(window.language, []).append(is_right)
        return statistics.mean(statistics.mean(values) for values in found.values())

    figures = statistics.mean(strict), statistics.mean(merged), by_language(strict), by_language(merged)
    return Score(contender, data, len(windows), *(round(figure, 4) for figure in figures))


def confidence(windows: Sequence[Window], answers: Sequence[Answer]) -> list[dict[str, float]]:
    """Return, for some thresholds, how many answers are as sure and how many of these are right."""
    rows = []
    for threshold in _THRESHOLDS:
        sure = [(window, said) for window, (said, share) in zip(windows, answers, strict=True) if share >= threshold]
        rows.append(
            {
                "confidence": threshold,
                "coverage": round(len(sure) / len(windows), 4),
                "strict": round(statistics.mean(window.language == said for window, said in sure), 4),
                "merged": round(statistics.mean(_same(window.language, said) for window, said in sure), 4),
            }
        )
    return rows


def answered(windows: Sequence[Window]) -> dict[str, float]:
    """Return for how many `detect` gives a guess, or names a language that is not run; how many are right."""
    given = []
    for window in windows:
        try:
            said = detect(window.text).language
        except UnknownLanguage as error:
            said = error.details.get("seems", "")
        if said:
            given.append((window.language, {"c-record": "c", "c-packet": "c"}.get(said, said)))
    return {
        "coverage": round(len(given) / len(windows), 4),
        "strict": round(statistics.mean(language == said for language, said in given), 4),
        "merged": round(statistics.mean(_same(language, said) for language, said in given), 4),
    }


def confusion(windows: Sequence[Window], answers: Sequence[Answer]) -> dict[str, dict[str, int]]:
    """Return how often each language was taken for each."""
    found: dict[str, Counter[str]] = {language: Counter() for language in ISSUE_LANGUAGES}
    for window, (said, _) in zip(windows, answers, strict=True):
        found[window.language][said or "unknown"] += 1
    return {language: dict(counts.most_common()) for language, counts in found.items()}


def ebpf() -> dict[str, int]:
    """Return how many of the record and packet programs in docs/ are told as such."""
    programs = [match for page in sorted(_DOCS.rglob("*.md")) for match in _EBPF.finditer(page.read_text())]
    right = sum(
        detect(program[1]).language == ("c-record" if program[2] == "on_record" else "c-packet") for program in programs
    )
    return {"programs": len(programs), "right": right}


def _same(one: str, other: str) -> bool:
    return _MERGED.get(one, one) == _MERGED.get(other, other)


def _chosen(windows: Sequence[Window], kind: str, most: int) -> list[Window]:
    chance = random.Random(2)
    found: list[Window] = []
    for language in ISSUE_LANGUAGES:
        members = [
            window for window in windows if window.side == "test" and (window.language, window.kind) == (language, kind)
        ]
        found += chance.sample(members, min(most, len(members)))
    return found


def _each(function: Callable[[str], Answer], texts: Sequence[str]) -> Callable[[], None]:
    """Return a call that takes the next text each time."""
    turn = cycle(texts)
    return lambda: (function(next(turn)), None)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--with-magika", action="store_true")
    parser.add_argument("--most", type=int, default=300, help="windows of a language, and fenced blocks")
    arguments = parser.parse_args()
    held = load(arguments.folder)
    scores: list[Score] = []
    extra: dict[str, Any] = {}
    sets = {
        "windows of 3-30 lines": _chosen(held, "file", arguments.most),
        "fenced blocks": _chosen(held, "fence", arguments.most),
    }
    sets["fenced blocks of 3 lines or more"] = [
        window for window in sets["fenced blocks"] if window.text.count("\n") >= 2
    ]
    every = [window.text for windows in sets.values() for window in windows]
    said, took = magika(every) if arguments.with_magika else ([], [])
    begin = 0
    for data, windows in sets.items():
        texts = [window.text for window in windows]
        answers = [ours(text) for text in texts]
        scores.append(score("runvisor", data, windows, answers))
        scores.append(score("pygments", data, windows, [pygments(text) for text in texts]))
        if arguments.with_magika:
            theirs = said[begin : begin + len(windows)]
            begin += len(windows)
            scores.append(score("magika", data, windows, theirs))
            extra[f"magika when sure: {data}"] = confidence(windows, theirs)
        extra[f"when sure: {data}"] = confidence(windows, answers)
        extra[f"answered: {data}"] = answered(windows)
        extra[f"confusion: {data}"] = confusion(windows, answers)
    extra["record and packet programs in docs"] = ebpf()
    texts = [window.text for window in sets["windows of 3-30 lines"]]
    random.Random(3).shuffle(texts)
    contenders = {"runvisor": timed(_each(ours, texts)), "pygments": timed(_each(pygments, texts))}
    times_s = interleave(contenders, rounds=_ROUNDS, bursts=dict.fromkeys(contenders, _BURST))
    if took:
        times_s["magika"] = took
    began = time.process_time()
    for text in texts:
        ours(text)
    extra["CPU ms of a call, mean"] = round((time.process_time() - began) / len(texts) * 1e3, 4)
    rows = summarise(times_s, "runvisor", {"runvisor": 0.5})
    extra["scores"] = [vars(line) for line in scores]
    extra["repositories"] = sorted({window.repository for window in sets["windows of 3-30 lines"]})
    report("language detection", rows, "runvisor", extra)


if __name__ == "__main__":
    main()
