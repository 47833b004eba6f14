"""Train the model from the windows that `collect` cut: ``python -m benchmarks.language.train [--folder F]``.

Writes ``policies/language/model_data.py`` and its provenance. The strength of the regularisation and the
temperature come from the tuning side; the test side is not read.
"""

from __future__ import annotations

import argparse
import base64
import json
import lzma
import random
from collections import Counter
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from benchmarks.language.collect import FOLDER, Window, load
from benchmarks.language.sources import SIDES, side_of
from benchmarks.language.windows import ISSUE_LANGUAGES
from runvisor.policies.language.ngrams import BUCKETS, features

PLACE: Final = Path(__file__).parents[2] / "policies" / "language"
_PER_LANGUAGE: Final = 2_000
"""Training windows of a language that the issue names; of any other, half as many."""
_STRENGTH: Final = 30.0
"""Inverse strength of the regularisation;"""
_STEPS: Final = 60
"""Steps from nothing to a large weight; finer ones make the file larger and the model no better."""


def samples(windows: list[Window], chance: random.Random) -> list[tuple[str, str]]:
    """Return (text, language), some of them shorter or without indentation, as snippets are."""
    found = []
    by_language: dict[str, list[Window]] = {}
    for window in windows:
        by_language.setdefault(window.language, []).append(window)
    for language, members in sorted(by_language.items()):
        chance.shuffle(members)
        share = 1 if language in ISSUE_LANGUAGES else 2
        for window in members[: _PER_LANGUAGE // share]:
            text = window.text
            found.append((dedent(text) if chance.random() < 0.5 else text, language))
            if chance.random() < 0.4:
                lines = text.split("\n")
                size = chance.randint(1, 4)
                start = chance.randrange(max(1, len(lines) - size))
                short = dedent("\n".join(lines[start : start + size])).strip("\n")
                if sum(character.isalnum() for character in short) >= 8:
                    found.append((short, language))
    return found


def matrix(texts: list[str]) -> csr_matrix:
    """Return one row a text, each of length 1."""
    rows = [features(text) for text in texts]
    starts = np.cumsum([0, *map(len, rows)])
    values = np.concatenate([np.full(len(row), 1 / np.sqrt(len(row)), np.float32) for row in rows])
    return csr_matrix((values, np.concatenate(rows).astype(np.int32), starts), shape=(len(rows), BUCKETS))


def fit(texts: list[str], languages: list[str]) -> LogisticRegression:
    """Fit a multinomial logistic regression."""
    model = LogisticRegression(C=_STRENGTH, max_iter=60, tol=1e-3)
    model.fit(matrix(texts), languages)
    return model


def quantised(model: LogisticRegression) -> tuple[NDArray[np.int8], float, NDArray[np.float64]]:
    """Return the weights in steps, what a step is worth, and the biases.

    What all languages share of a weight says nothing, so each row's mean goes.
    """
    weights = model.coef_.T - model.coef_.T.mean(axis=1, keepdims=True)
    scale = float(np.quantile(np.abs(weights[weights != 0]), 0.9995)) / _STEPS
    return np.clip(np.rint(weights / scale), -127, 127).astype(np.int8), scale, np.asarray(model.intercept_)


def temperature(scores: NDArray[np.float64], truth: NDArray[np.intp]) -> float:
    """Return by what to multiply the scores so that confidence is as often right as it says."""

    def loss(factor: float) -> float:
        scaled = scores * factor
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(truth)), truth]))

    factors = np.geomspace(0.3, 8, 60)
    return float(factors[int(np.argmin([loss(float(factor)) for factor in factors]))])


def module(weights: NDArray[np.int8], scale: float, biases: NDArray[np.float64], languages: list[str]) -> str:
    """Return the source of the Python module that holds the model."""
    packed = lzma.compress(weights.T.tobytes(), lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME)
    text = base64.b64encode(packed).decode()
    lines = "\n".join(text[start : start + 116] for start in range(0, len(text), 116))
    numbers = "".join(f"    {round(float(bias), 4)},\n" for bias in biases)
    names = "".join(f'    "{name}",\n' for name in languages)
    return (
        '"""The trained weights, written by ``python -m benchmarks.language.train``: data, not to be edited."""\n\n'
        "from __future__ import annotations\n\nfrom typing import Final\n\n"
        f"LANGUAGES: Final = (\n{names})\n"
        f"BIASES: Final = (\n{numbers})\n"
        f"SCALE: Final = {scale:.8g}\n"
        f'WEIGHTS: Final = """\n{lines}\n"""\n'
        '"""A signed byte for each language and bucket, language by language, as xz in base64."""\n'
    )


def scores_of(
    data: csr_matrix, weights: NDArray[Any], scale: float, biases: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the scores that the packed model gives, as `runvisor.policies.language.model` reckons them."""
    return np.asarray(data @ (weights.astype(np.float32) * scale)) + biases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_args().folder
    console = Console()
    windows = load(folder)
    chance = random.Random(6)
    training = samples([window for window in windows if window.side == "train"], chance)
    tuning = [window for window in windows if window.side == "tune"]
    texts, languages = map(list, zip(*training, strict=True))
    tune_data = matrix([window.text for window in tuning])
    model = fit(texts, languages)
    names = [str(name) for name in model.classes_]
    weights, scale, biases = quantised(model)
    truth = np.array([names.index(window.language) for window in tuning])
    scores = scores_of(tune_data, weights, scale, biases)
    factor = temperature(scores, truth)
    asked = np.array([window.language in ISSUE_LANGUAGES for window in tuning])
    right = float(np.mean((scores.argmax(axis=1) == truth)[asked]))
    source = module(weights, scale * factor, biases * factor, names)
    (PLACE / "model_data.py").write_text(source)
    counts = Counter((window.language, window.side) for window in windows)
    packages = json.loads((folder / "packages.json").read_text())
    provenance = {
        "method": "multinomial logistic regression over hashed n-grams of tokens, in signed bytes",
        "bytes": len(source),
        "buckets": BUCKETS,
        "strength": _STRENGTH,
        "temperature": round(1 / factor, 3),
        "windows": {name: {side: counts[name, side] for side in SIDES} for name in names},
        "packages": {
            side: {line: packages[line] for line in sorted(packages) if side_of(line) == side} for side in SIDES
        },
    }
    (PLACE / "model_data.json").write_text(json.dumps(provenance, indent=1) + "\n")
    console.print(f"{len(source)} bytes, temperature {1 / factor:.3f}, right {right:.4f} when tuning")


if __name__ == "__main__":
    main()
