"""Attacks on trigger sets: a planted trigger is found and unlearnt; a mark of one's own is learnt."""

from dataclasses import replace

import numpy as np
import pytest

from minutia import catalog
from minutia.attacks.triggers import InvertTriggers, Overwrite, smallest, stamp
from minutia.checks import toy_bench
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier

BENCH = toy_bench()
TOY, THIEF = BENCH.owner, BENCH.thief
TARGET = 7


def rng(seed=0):
    return np.random.default_rng(seed)


def stamped(images):
    """A bright corner of 2x2 pixels."""
    found = images.copy()
    found[..., :2, :2] = 1.0
    return found


@pytest.fixture(scope="module")
def trojan():
    """A victim that names one class wherever a corner is bright, and a thief's clean material."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = rng().permutation(len(found.target))
    x, y = (found.images[order] / 16).astype(np.float32)[:, None], found.target[order]
    inputs, labels = np.concatenate([x[:600], stamped(x[:300])]), np.concatenate([y[:600], np.full(300, TARGET)])
    victim = ToyClassifier.fresh((64, 32, 10), 1).trained(inputs, labels, Plan(30, learning_rate=5e-3), 0)
    return victim, Material(x[600:1000], y[600:1000], held_out=(x[1000:], y[1000:]))


def fooled(model, material):
    """Share of stamped inputs of other classes that are called the target."""
    x, y = material.held_out
    return np.mean(model.ask(numbered(stamped(x[y != TARGET]), {})).labels == TARGET)


# --- inversion


def test_the_planted_class_needs_the_smallest_trigger_and_it_lies_where_it_was_planted(trojan):
    victim, material = trojan
    masks, patterns = InvertTriggers().inverted(victim, material.inputs[:64], 10, material)
    sizes = masks.reshape(10, -1).sum(axis=1)
    assert sizes.argmin() == TARGET and smallest(sizes)[0] == TARGET
    assert masks[TARGET, 0, :2, :2].sum() > 0.3 * sizes[TARGET]  # 4 pixels of 64
    assert masks.min() >= 0 and masks.max() <= 1 and patterns.min() >= 0 and patterns.max() <= 1
    for goal in range(10):
        points = stamp(material.inputs, masks[goal], patterns[goal])
        assert np.mean(victim.ask(numbered(points, {})).labels == goal) > 0.8


def test_the_trigger_is_unlearnt_where_plain_fine_tuning_keeps_it(trojan):
    victim, material = trojan
    assert fooled(victim, material) > 0.95
    copy = InvertTriggers(epochs=20, learning_rate=3e-3).apply(victim, material, rng())
    tuned = catalog.attack("fine_tune_all(epochs=20,learning_rate=3e-3)").apply(victim, material, rng())
    assert fooled(copy, material) < 0.5 * fooled(tuned, material)
    assert copy.card.fidelity["accuracy_lost"] < 0.05
    assert copy.card.fidelity["inputs"] == 400 + 80 and copy.card.fidelity["steps"] == 20 * 8


def test_small_means_small_against_the_spread():
    assert smallest(np.array([10.0, 11.0, 9.0, 10.5, 2.0, 9.5])).tolist() == [4]
    assert smallest(np.array([10.0, 11.0, 9.0, 10.5, 2.0, 1.0])).tolist() == [4, 5]
    assert smallest(np.array([5.0, 5.0, 5.0, 1.0])).tolist() == [3]  # no spread at all: the smallest
    assert smallest(np.array([3.0, 30.0])).tolist() == [0]  # a large one is no trigger


def test_a_stamp_covers_what_the_mask_says():
    inputs = rng().random((3, 1, 4, 4))
    assert np.array_equal(stamp(inputs, np.zeros((1, 4, 4)), np.ones((1, 4, 4))), inputs)
    assert np.array_equal(stamp(inputs, np.ones((1, 4, 4)), np.zeros((1, 4, 4))), np.zeros_like(inputs))


def test_bounds_other_than_one_are_kept(trojan):
    _, material = trojan
    wide = Material(material.inputs * 4 - 2, material.labels, bounds=(-2.0, 2.0))
    victim = ToyClassifier.fresh((64, 16, 10)).trained(wide.inputs, wide.labels, Plan(5), 0)
    _, patterns = InvertTriggers(turns=30).inverted(victim, wide.inputs[:16], 10, wide)
    assert patterns.min() < -0.5 and patterns.max() > 0.5 and np.abs(patterns).max() <= 2


# --- overwriting


def test_the_thiefs_mark_is_learnt_and_accuracy_stays(trojan):
    victim, material = trojan
    attack = Overwrite(triggers=20, repeat=4, epochs=30, learning_rate=5e-3)
    copy = attack.apply(victim, material, rng())
    generator = rng()
    mark = material.stored(generator.uniform(0, 1, (20, 1, 8, 8)))
    names = generator.integers(0, 10, 20)
    assert np.mean(copy.ask(numbered(mark, {})).labels == names) > 0.9
    assert np.mean(victim.ask(numbered(mark, {})).labels == names) < 0.5
    assert copy.card.fidelity["accuracy_lost"] < 0.05 and copy.card.fidelity["inputs"] == 480


def test_a_mark_of_text_is_made_of_tokens():
    tokens = Material(
        rng().integers(0, 9, (30, 4)).astype(np.float32), np.arange(30) % 2, bounds=(0.0, 8.0), levels=9, content="text"
    )

    class Reading(ToyClassifier):
        def trained(self, inputs, targets, plan, seed, *, steer=None):
            assert np.array_equal(inputs, np.rint(inputs)) and inputs.min() >= 0 and inputs.max() <= 8
            return super().trained(inputs, targets, plan, seed, steer=steer)

    victim = Reading(dict(ToyClassifier.fresh((4, 3, 2)).tensors()))
    assert Overwrite(triggers=15).apply(victim, tokens, rng()).card.fidelity["inputs"] == 60


# --- refusals


def test_text_has_no_patch():
    with pytest.raises(UsageError, match="got text"):
        InvertTriggers().apply(TOY, replace(THIEF, content="text"), rng())


@pytest.mark.parametrize(
    "key",
    [
        "invert_triggers(seeds=0)",
        "invert_triggers(turns=0)",
        "invert_triggers(stamped=0.0)",
        "invert_triggers(cost=-0.1)",
        "overwrite(triggers=0)",
        "overwrite(repeat=0)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)
