"""Attacks: what each does to weights or answers, known from its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minutia import catalog
from minutia.attacks.compress import Noise, Prune, Quantise
from minutia.attacks.extract import Distil, ExtractLabels
from minutia.attacks.learn import FineTuneAll, FineTuneLast, RetrainLast
from minutia.checks import toy_bench
from minutia.core.access import Access
from minutia.core.errors import MinutiaError, UnknownNameError, UsageError
from minutia.core.fingerprint import THREATS
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier

BENCH = toy_bench()
TOY = BENCH.owner
THIEF = BENCH.thief
weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=3, max_side=5), elements=st.floats(-3, 3, width=32)
)


def rng(seed=0):
    return np.random.default_rng(seed)


def agreement(one, other, inputs=THIEF.inputs):
    probes = numbered(inputs, {})
    return np.mean(one.ask(probes).labels == other.ask(probes).labels)


def test_every_default_threat_has_an_attack_and_every_attack_a_key():
    kinds = {catalog.attack(name).kind for name in catalog.names("attacks")}
    assert set(THREATS) <= kinds
    for name in catalog.names("attacks"):
        attack = catalog.attack(name)
        assert catalog.attack(attack.key) == attack


# --- weights


@given(weights, st.floats(0, 1))
def test_pruning_zeroes_the_smallest_and_keeps_the_rest(tensor, fraction):
    pruned = Prune(fraction=fraction, spread=0.0).change(tensor, rng())
    gone = pruned == 0
    assert gone.sum() >= fraction * tensor.size - 1
    np.testing.assert_array_equal(pruned[~gone], tensor[~gone])
    if gone.any() and (~gone).any():
        assert np.abs(tensor[gone]).max() <= np.abs(tensor[~gone]).min()


@given(weights, st.integers(2, 16))
def test_quantised_weights_lie_on_few_levels_next_to_where_they_were(tensor, bits):
    found = Quantise(bits=bits).change(tensor, rng())
    step = max(float(np.abs(tensor).max()), 1e-12) / (2 ** (bits - 1) - 1)
    np.testing.assert_allclose(found / step, np.round(found / step), atol=1e-3)
    assert np.abs(found - tensor).max() <= step * 1.001
    assert len(np.unique(np.round(found / step))) <= 2**bits


def test_quantising_is_right_on_average():
    tensor = rng(1).normal(size=(20, 20))
    mean = np.mean([Quantise(bits=3).change(tensor, rng(seed)) for seed in range(200)], axis=0)
    assert np.abs(mean - tensor).max() < 0.25 * np.abs(tensor).max() / 3


def test_noise_is_a_share_of_each_tensors_deviation():
    tensor = rng(1).normal(0, 2, (200, 200))
    added = Noise(strength=0.1).change(tensor, rng()) - tensor
    assert added.std() == pytest.approx(0.2, rel=0.02) and abs(added.mean()) < 0.01


@pytest.mark.parametrize("attack", [Prune(), Quantise(), Noise()], ids=lambda a: a.name)
def test_vectors_stay_and_the_copy_answers_like_the_victim(attack):
    copy = attack.apply(TOY, THIEF, rng())
    for (name, before), (_, after) in zip(TOY.tensors(), copy.tensors(), strict=True):
        assert before.dtype == after.dtype
        assert np.array_equal(before, after) == (before.ndim < 2), name
    assert agreement(copy, TOY) > 0.7


@pytest.mark.parametrize("attack", [Quantise(bits=16), Noise(strength=1e-4), Prune(fraction=0.02, spread=0.01)])
def test_a_weak_attack_changes_hardly_an_answer(attack):
    assert agreement(attack.apply(TOY, THIEF, rng()), TOY) > 0.97


# --- training


@pytest.mark.parametrize(
    ("attack", "kept"),
    [
        (FineTuneLast(), {"w0", "b0"}),
        (RetrainLast(), {"w0", "b0"}),
        (FineTuneAll(), set()),
        (Distil(), set()),
        (ExtractLabels(), set()),
    ],
    ids=lambda a: getattr(a, "name", ""),
)
def test_what_is_trained_and_what_stays(attack, kept):
    copy = attack.apply(TOY, THIEF, rng())
    same = {n for (n, a), (_, b) in zip(TOY.tensors(), copy.tensors(), strict=True) if np.array_equal(a, b)}
    assert same == kept
    assert copy.card.recipe == attack.key and copy.card.parents == (TOY.card.id,) and copy.card.root == TOY.card.root


def test_copies_that_start_from_the_weights_are_nearer_than_those_that_start_afresh():
    near, far = FineTuneAll().apply(TOY, THIEF, rng()), ExtractLabels().apply(TOY, THIEF, rng())

    def distance(model):
        return sum(np.square(a - b).sum() for (_, a), (_, b) in zip(TOY.tensors(), model.tensors(), strict=True))

    assert distance(near) < 0.2 * distance(far)
    assert FineTuneAll.keeps_weights and not ExtractLabels.keeps_weights and not Distil.keeps_weights


def test_extraction_uses_the_victims_labels_and_never_the_true_ones():
    wrong = Material(THIEF.inputs, np.zeros(len(THIEF.labels), int))
    for attack in (Distil(), ExtractLabels()):
        assert attack.apply(TOY, wrong, rng()).card.id == attack.apply(TOY, THIEF, rng()).card.id
        assert agreement(ExtractLabels(epochs=60).apply(TOY, wrong, rng()), TOY) > 0.6


def test_fine_tuning_learns_the_thiefs_labels():
    labels = np.zeros(len(THIEF.labels), int)
    copy = FineTuneAll(epochs=40, learning_rate=1e-2).apply(TOY, Material(THIEF.inputs, labels), rng())
    assert np.mean(copy.ask(numbered(THIEF.inputs, {})).labels == 0) > 0.95


def test_distillation_targets_are_softened_probabilities():
    hot, cold = (Distil(temperature=t).answers(TOY, THIEF.inputs)[1] for t in (5.0, 0.2))
    np.testing.assert_allclose(hot.sum(axis=1), 1, rtol=1e-5)
    assert hot.max(axis=1).mean() < cold.max(axis=1).mean()
    np.testing.assert_array_equal(hot.argmax(axis=1), TOY.ask(numbered(THIEF.inputs, {})).labels)


# --- refusals


@pytest.mark.parametrize(
    "key",
    [
        "prune(fraction=0.95)",
        "prune(fraction=0.05)",
        "quantise(bits=1)",
        "quantise(bits=17)",
        "noise(strength=-0.1)",
        "noise(strength=nan)",
        "noise(strength=0.1)@2",
        "noise(power=1)",
        "fine_tune_all(epochs=x)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)


@pytest.mark.parametrize(
    "key", ["fine_tune_all(epochs=-1)", "distil(temperature=0.0)", "extract_labels(learning_rate=0.0)"]
)
def test_a_plan_that_cannot_work_is_refused_when_it_is_carried_out(key):
    with pytest.raises(UsageError, match=r"expected (a )?positive"), np.errstate(all="ignore"):
        catalog.attack(key).apply(TOY, THIEF, rng())


def test_a_key_of_another_attack_is_refused():
    with pytest.raises(UsageError, match="parameters of noise"):
        Noise.from_key("prune()")
    with pytest.raises(UnknownNameError, match="did you mean quantise"):
        catalog.attack("quantize")


@pytest.mark.parametrize("attack", [Noise(), FineTuneAll()], ids=lambda a: a.name)
def test_a_model_that_gives_too_little_is_refused(attack):
    class Box:
        spec, card, access = "box", ModelCard("b", "b"), Access.LABELS

    with pytest.raises(UsageError, match=f"for {attack.name}, got box with labels"):
        attack.apply(Box(), THIEF, rng())


def test_data_of_another_size_is_one_sentence():
    with pytest.raises(MinutiaError, match="expected inputs of 16 numbers"):
        FineTuneAll().apply(TOY, Material(np.zeros((3, 5), np.float32), np.zeros(3, int)), rng())
    with pytest.raises(MinutiaError, match="below 5"):
        FineTuneAll().apply(TOY, Material(THIEF.inputs, THIEF.labels + 3), rng())


def test_attacks_work_on_torch_models_too():
    torch = pytest.importorskip("torch")
    from minutia.models.torch import TorchModel

    torch.manual_seed(0)
    victim = TorchModel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 5))
    )
    for name in sorted({*catalog.names("attacks")} - {"fold_norms"}):  # which needs norms
        copy = catalog.attack(name).apply(victim, THIEF, rng())
        assert copy.card.parents == (victim.card.id,) and copy.card.root == victim.card.root, name
        assert copy.ask(numbered(THIEF.inputs[:3], {})).labels.shape == (3,)


def test_an_untrained_victim_is_fine_too():
    assert isinstance(Noise().apply(ToyClassifier.fresh((16, 5)), THIEF, rng()), ToyClassifier)
