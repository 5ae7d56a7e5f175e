"""Real checkpoints of known descent, where they lie beside the project."""

from itertools import combinations
from pathlib import Path

import pytest

from minutia import api

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "weights"
FILES = sorted(FOLDER.glob("*.npz")) if FOLDER.is_dir() else []
START = "waifu2x_cunet"
"""Two trainings whose scripts share a seed."""

pytestmark = pytest.mark.skipif(not FILES, reason="the real checkpoints are not here")


def family(path):
    """Fine-tunes of one network, and a model and its quantised copy; all others were trained apart."""
    name = path.stem
    if name.startswith("waifu2x"):
        return name.partition("__")[0]
    return name.partition("-")[0] if name.startswith("tinyrwkv") else name


RELATED = [pair for pair in combinations(FILES, 2) if len({family(path) for path in pair}) == 1]
STRANGERS = [pair for pair in combinations(FILES, 2) if len({family(path) for path in pair}) == 2]


def shown(pairs):
    return ["-".join(path.stem[-24:] for path in pair) for pair in pairs]


def test_pairs_are_those_that_are_known():
    names = {tuple(path.stem for path in pair) for pair in RELATED}
    assert ("waifu2x_cunet__noise0", "waifu2x_cunet__noise1") in names
    assert ("tinyrwkv_4v0-660K-FP32", "tinyrwkv_4v0-660K-Q5_0") in names
    assert not any("rnnoise" in name or "resnet" in name for pair in names for name in pair)


@pytest.mark.parametrize("pair", RELATED, ids=shown(RELATED))
def test_related_pairs_are_found(pair):
    found = api.compare(*map(str, pair)).comparison
    assert found.p_value <= 1e-6
    if START in pair[0].name:
        assert found.relation == "shared ancestor or initialisation"
    elif "tinyrwkv" in pair[0].name:
        assert found.relation == "derived"


def test_unrelated_pairs_are_not():
    wrong = [
        pair for pair in STRANGERS if api.compare(*map(str, pair)).comparison.relation not in ("unrelated", "undecided")
    ]
    assert wrong == []
