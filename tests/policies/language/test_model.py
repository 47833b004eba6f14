"""The trained model: features that are the same everywhere, and where it comes from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from runvisor.policies.language import model_data
from runvisor.policies.language.evidence import PROSE, ranking
from runvisor.policies.language.model import log_odds
from runvisor.policies.language.names import DISPLAY
from runvisor.policies.language.ngrams import BUCKETS, features
from runvisor.policies.language.tokens import tokens

FOLDER = Path(model_data.__file__).parent
CODE = "for i in range(3):\n    print(i)\n"


def test_features_are_the_same_in_another_process() -> None:
    """A hash that differs by process would make the model worthless there."""
    program = f"from runvisor.policies.language.ngrams import features; print(features({CODE!r}).tolist())"
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(other.stdout) == features(CODE).tolist()


@given(st.text() | st.text("ab=(){};\n'\"`/*# ", max_size=200))
@settings(deadline=None)
def test_features_are_at_most_five_for_a_token(text: str) -> None:
    found = features(text).tolist()
    assert found == sorted(set(found))
    assert 1 <= len(found) <= 5 * len(tokens(text))
    assert found[-1] < BUCKETS


def test_the_model_knows_the_languages_and_prose() -> None:
    assert set(model_data.LANGUAGES) <= {*DISPLAY, PROSE}
    assert ranking(log_odds(CODE * 3))[0][0] == "python"
    assert ranking(log_odds("This text explains to a reader what they may expect, and why.\n" * 3))[0][0] == PROSE


def test_the_model_is_small_and_says_what_it_was_trained_on() -> None:
    size = len((FOLDER / "model_data.py").read_bytes())
    provenance = json.loads((FOLDER / "model_data.json").read_text())
    assert size < 500_000
    assert size == provenance["bytes"]
    assert set(provenance["windows"]) == set(model_data.LANGUAGES)
    train, tune, test = (set(provenance["packages"][side]) for side in ("train", "tune", "test"))
    assert not train & tune
    assert not (train | tune) & test
    assert all(provenance["windows"][language]["train"] > 100 for language in model_data.LANGUAGES)


def test_inference_needs_no_scikit_learn() -> None:
    program = "import sys; from runvisor.policies.language import detect; detect('def f():\\n  return 1'); "
    program += "sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
