"""Averages of weights: with a fine-tuned copy, and with a stranger of the same architecture."""

from dataclasses import replace

import numpy as np
import pytest

from minutia.attacks.learn import FineTuneAll
from minutia.attacks.merge import Average
from minutia.checks import check_attack, toy_bench
from minutia.core.attack import destroyed
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.models.torch import TorchModel
from minutia.models.toy import ToyClassifier
from networks import IMAGES, cnn, lively, nn

BENCH = toy_bench()
TOY = BENCH.owner
STRANGER = BENCH.innocents[0]
THIEF = replace(BENCH.thief, companion=STRANGER)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_it_keeps_the_contract_with_either_partner():
    check_attack(Average())
    check_attack(Average(other="companion"), replace(BENCH, thief=THIEF))


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_every_weight_is_the_average(weight):
    copy = dict(Average(weight=weight, other="companion").apply(TOY, THIEF, rng()).tensors())
    theirs = dict(STRANGER.tensors())
    for name, mine in TOY.tensors():
        np.testing.assert_allclose(copy[name], weight * mine + (1 - weight) * theirs[name], atol=1e-6)
        assert copy[name].dtype == np.float32


def test_the_partner_is_the_fine_tune_that_the_thief_would_make():
    tuned = dict(FineTuneAll().apply(TOY, THIEF, rng()).tensors())
    copy = Average().apply(TOY, THIEF, rng())
    weights = dict(copy.tensors())
    for name, mine in TOY.tensors():
        np.testing.assert_allclose(weights[name], (mine + tuned[name]) / 2, atol=1e-6)
        assert not np.array_equal(mine, tuned[name])
    assert copy.card.fidelity["inputs"] == 160 and copy.card.fidelity["steps"] == Plan(5).steps(160)


def test_a_soup_keeps_its_accuracy_and_an_average_of_strangers_does_not():
    soup = Average().apply(TOY, THIEF, rng()).card
    mixed = Average(weight=0.3, other="companion").apply(TOY, THIEF, rng()).card
    assert soup.fidelity["accuracy_lost"] < 0.05 < mixed.fidelity["accuracy_lost"]
    assert not destroyed(soup.fidelity)
    assert not {"inputs", "steps", "queries"} & set(mixed.fidelity)
    assert mixed.root == TOY.card.root and mixed.parents == (TOY.card.id,)


def test_a_companion_is_never_changed():
    before = {name: w.copy() for name, w in STRANGER.tensors()}
    Average(other="companion").apply(TOY, THIEF, rng())
    assert all(np.array_equal(before[name], w) for name, w in STRANGER.tensors())


def test_statistics_of_norms_are_averaged_too():
    one, two = (TorchModel(lively(cnn(nn.BatchNorm2d), seed)) for seed in (0, 1))
    copy = Average(other="companion").apply(one, Material(IMAGES, np.arange(6) % 5, companion=two), rng())
    found, mine, theirs = (dict(model.tensors())["1.running_var"] for model in (copy, one, two))
    np.testing.assert_allclose(found, (mine + theirs) / 2, rtol=1e-6)


# --- refusals


def test_without_a_companion_there_is_nothing_to_average():
    with pytest.raises(UsageError, match="expected a companion model with open weights, got none"):
        Average(other="companion").apply(TOY, replace(THIEF, companion=None), rng())


@pytest.mark.parametrize("sizes", [(16, 11, 5), (16, 12, 12, 5)])
def test_a_companion_of_another_architecture_is_refused(sizes):
    other = ToyClassifier.fresh(sizes)
    with pytest.raises(UsageError, match=r"expected a companion of the architecture of toy:.* other tensors"):
        Average(other="companion").apply(TOY, replace(THIEF, companion=other), rng())


@pytest.mark.parametrize(
    "key", ["average(weight=0)", "average(weight=1)", "average(weight=nan)", "average(other=both)"]
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        Average.from_key(key)
