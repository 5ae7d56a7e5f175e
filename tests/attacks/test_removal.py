"""Removal by training: features move while answers stay, and known probes are unlearnt."""

from dataclasses import replace

import numpy as np
import pytest

from minutia import catalog
from minutia.attacks.removal import RemovalNet, Unlearn, harmless, mixed
from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.answers import Answers
from minutia.core.errors import UsageError
from minutia.core.material import Disclosed
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier

BENCH = toy_bench()
TOY, THIEF = BENCH.owner, BENCH.thief


def rng(seed=0):
    return np.random.default_rng(seed)


def moved(copy, victim, inputs):
    """How far the last hidden features went, in units of their own variance."""
    name = victim.units()[-1].name
    before, after = victim.features(inputs)[name], copy.features(inputs)[name]
    return float(np.square(after - before).mean() / before.var())


# --- RemovalNet


def test_features_move_farther_than_by_fine_tuning_and_accuracy_stays(digits):
    victim, material = digits
    x = material.held_out[0]
    copy = RemovalNet().apply(victim, material, rng())
    tuned = catalog.attack("fine_tune_all(epochs=20)").apply(victim, material, rng())
    assert moved(copy, victim, x) > 2 * moved(tuned, victim, x)
    assert copy.card.fidelity["accuracy_lost"] < 0.03
    assert copy.card.fidelity["steps"] == 20 * 7 and copy.card.fidelity["queries"] == 0


def test_without_steering_features_stay_nearer(digits):
    victim, material = digits
    x = material.held_out[0]
    steered, free = (RemovalNet(weight=w).apply(victim, material, rng()) for w in (2.0, 0.0))
    assert moved(steered, victim, x) > 1.3 * moved(free, victim, x)


def test_a_schedule_spans_all_rounds():
    made = [
        RemovalNet(epochs=rounds, rounds=rounds, schedule=schedule).apply(TOY, THIEF, rng()).card.id
        for rounds in (1, 4)
        for schedule in ("constant", "cosine")
    ]
    assert made[0] == made[1] and made[2] != made[3]


def test_crafted_targets_are_a_bounded_walk_away_and_never_negative():
    features = np.abs(rng().normal(size=(50, 6))).astype(np.float32)
    found = RemovalNet(turns=20, pace=0.01).crafted(features, rng())
    step = np.abs(found - features)
    assert found.dtype == np.float32 and found.min() >= 0
    assert step.max() <= 20 * 0.01 * features.std() + 1e-5 and np.median(step) > 10 * 0.01 * features.std()
    assert np.array_equal(RemovalNet(turns=0).crafted(features, rng()), features)
    assert RemovalNet().crafted(features - 1, rng()).min() < 0  # units without a lower bound keep theirs


def test_mixed_answers_keep_the_top_class_and_no_more_than_needed():
    own = TOY.ask(numbered(THIEF.inputs, {})).scores
    found = mixed(TOY, THIEF.inputs, (0.3, 0.9), 1.0, rng())
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(found.argmax(axis=1), own.argmax(axis=1))
    assert np.abs(found - own).max() > 0.3
    np.testing.assert_allclose(mixed(TOY, THIEF.inputs, (1.0, 1.0), 1.0, rng()), own, atol=1e-5)
    less = mixed(TOY, THIEF.inputs, (0.8, 0.9), 1.0, rng())
    assert np.abs(less - own).mean() < np.abs(found - own).mean()


def test_a_model_without_hidden_units_is_refused():
    flat = ToyClassifier.fresh((16, 5))
    with pytest.raises(UsageError, match="hidden units"):
        RemovalNet().apply(flat, THIEF, rng())


# --- unlearning


def test_known_probes_are_unlearnt_and_the_rest_stays(digits):
    victim, material = digits
    probes = rng(3).random((60, 1, 8, 8)).astype(np.float32)
    convicting = victim.ask(numbered(probes, {})).labels
    disclosed = replace(material, disclosed=Disclosed(probes, convicting))

    def kept(share):
        copy = Unlearn(share=share, repeat=4, epochs=40).apply(victim, disclosed, rng())
        assert copy.card.fidelity["accuracy_lost"] < 0.05
        known = max(1, round(share * 60))
        assert copy.card.fidelity["queries"] == known and copy.card.fidelity["inputs"] == 400 + 4 * known
        return np.mean(copy.ask(numbered(probes, {})).labels == convicting)

    assert kept(1.0) < 0.1 < kept(0.5) < kept(0.1)


def test_the_new_label_is_the_best_of_the_harmless_ones():
    x = THIEF.inputs
    scores = TOY.ask(numbered(x, {})).scores
    best, second = np.argsort(scores, axis=1)[:, :-3:-1].T
    assert np.array_equal(harmless(TOY, x, best, 5, rng()), second)
    assert np.array_equal(harmless(TOY, x, second, 5, rng()), best)
    assert np.array_equal(harmless(TOY, x, np.full(len(x), -1), 5, rng()), best)  # nothing convicts: as it is


def test_without_scores_any_other_label_will_do():
    class Box:
        spec, card, access = "box", ModelCard("b", "b"), Access.LABELS

        def ask(self, probes):
            return Answers.from_labels(np.arange(len(probes)) % 3)

    convicting = np.array([0, 2, 2, 0, 1, 0])
    found = harmless(Box(), np.zeros((6, 1)), convicting, 3, rng())
    assert np.all(found != convicting) and found.min() >= 0 and found.max() < 3
    assert found[1] == 1 and found[5] == 2  # the victim's own answer, where that is harmless already


# --- refusals


def test_what_is_missing_is_named():
    with pytest.raises(UsageError, match="disclosed probes for unlearn"):
        Unlearn().apply(TOY, replace(THIEF, disclosed=None), rng())


@pytest.mark.parametrize(
    "key",
    [
        "removal_net(rounds=0)",
        "removal_net(epochs=2,rounds=3)",
        "removal_net(least=0.8,most=0.2)",
        "removal_net(soft=1.5)",
        "removal_net(temperature=0.0)",
        "unlearn(share=0.0)",
        "unlearn(repeat=0)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)


def test_removal_works_on_torch_models():
    torch = pytest.importorskip("torch")
    from minutia.models.torch import TorchModel

    torch.manual_seed(0)
    layers = [torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16, 5)]
    victim = TorchModel(torch.nn.Sequential(*layers))
    copy = RemovalNet(epochs=10, rounds=5).apply(victim, THIEF, rng())
    assert moved(copy, victim, THIEF.inputs) > 0.01 and copy.card.parents == (victim.card.id,)
