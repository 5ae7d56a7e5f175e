"""Structured pruning: what is removed, that it is really gone, and that it stays so while the rest is trained."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.attacks.channels import FinePrune, PruneChannels, smallest
from minutia.checks import Bench, check_attack, toy_bench
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Plan
from minutia.core.probe import numbered
from minutia.core.units import incoming
from minutia.models.torch import TorchModel
from minutia.models.toy import ToyClassifier
from networks import IMAGES, cnn, lively, mlp, nn, resnet

BENCH = toy_bench()
TOY, DATA = BENCH.owner, BENCH.thief
THIEF = Material(IMAGES, np.arange(6) % 5, held_out=(IMAGES, np.arange(6) % 5))
NETWORKS = {
    "cnn": TorchModel(lively(cnn())),
    "cnn, batch norm": TorchModel(lively(cnn(nn.BatchNorm2d))),
    "resnet": TorchModel(lively(resnet())),
}
HALF = PruneChannels(fraction=0.5, spread=0.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def logits(model, inputs):
    return model.ask(numbered(inputs, {})).logits


def dead(model, group, inputs):
    """Units that nothing makes, that nothing reads, and that are silent."""
    weights = dict(model.tensors())
    rows = [slot.rows(weights[slot.tensor]) for slot in (*group.writes, *group.reads)]
    silent = ~model.features(inputs)[group.name].any(axis=0)
    return np.flatnonzero(silent & ~np.any([np.any(r, axis=1) for r in rows], axis=0)).tolist()


@pytest.mark.parametrize("attack", [PruneChannels(), FinePrune()], ids=lambda a: a.name)
def test_attacks_keep_the_contract_on_the_toy_bench(attack):
    check_attack(attack)


@pytest.mark.parametrize("attack", [PruneChannels(), FinePrune(epochs=1)], ids=lambda a: a.name)
@pytest.mark.parametrize("name", NETWORKS)
def test_attacks_keep_the_contract_on_torch_networks(attack, name):
    check_attack(attack, Bench(NETWORKS[name], THIEF, THIEF, ()))


# --- by weights


def test_the_smallest_units_go_and_the_function_is_that_of_the_narrower_network():
    copy = HALF.apply(TOY, DATA, rng())
    weights = dict(TOY.tensors())
    sizes = np.abs(weights["w0"]).sum(axis=0)
    (group,) = copy.units()
    gone = dead(copy, group, DATA.inputs)
    assert len(gone) == 6 and set(gone) == set(np.argsort(sizes)[:6])
    stay = np.setdiff1d(np.arange(12), gone)
    narrow = {"w0": weights["w0"][:, stay], "b0": weights["b0"][stay], "w1": weights["w1"][stay], "b1": weights["b1"]}
    np.testing.assert_allclose(logits(copy, DATA.inputs), logits(ToyClassifier(narrow), DATA.inputs), atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_loses_its_share(name):
    copy = HALF.apply(NETWORKS[name], THIEF, rng())
    before = dict(NETWORKS[name].tensors())
    for group in copy.units():
        gone = dead(copy, group, IMAGES)
        assert len(gone) == round(group.count / 2)
        sizes = incoming(before, group.writes)
        assert sizes[gone].max() <= np.delete(sizes, gone).min()
    assert np.isfinite(logits(copy, IMAGES)).all()


def test_a_residual_stream_counts_what_all_its_layers_write():
    *_, stream = NETWORKS["resnet"].units()
    weights = dict(NETWORKS["resnet"].tensors())
    names = ("stage2.0.conv2.weight", "stage2.0.short.0.weight", "stage2.1.conv2.weight")
    sizes = sum(np.abs(weights[name]).sum(axis=(1, 2, 3)) for name in names)
    np.testing.assert_allclose(incoming(weights, stream.writes), sizes, rtol=1e-5)


def test_shares_differ_within_the_spread():
    attack, many = PruneChannels(fraction=0.5, spread=0.2), np.arange(1000.0)
    shares = [len(attack.gone(many, rng(seed))) / 1000 for seed in range(50)]
    assert 0.3 <= min(shares) < 0.35 and 0.65 < max(shares) <= 0.7


@given(st.lists(st.floats(0, 9), min_size=1, max_size=30), st.floats(0, 1))
def test_one_unit_always_stays(values, share):
    gone = smallest(np.array(values), share)
    stay = np.delete(np.array(values), gone)
    assert len(gone) == min(round(share * len(values)), len(values) - 1)
    assert not len(gone) or np.array(values)[gone].max() <= stay.min()


# --- by activity


@pytest.mark.parametrize("name", NETWORKS)
def test_dormant_units_of_the_last_group_go_and_stay_gone(name):
    victim = NETWORKS[name]
    copy = FinePrune(fraction=0.5, epochs=3, learning_rate=1e-2).apply(victim, THIEF, rng())
    *others, last = copy.units()
    active = np.abs(victim.features(IMAGES)[last.name]).mean(axis=0)
    gone = dead(copy, last, IMAGES)
    assert len(gone) == round(last.count / 2)
    assert active[gone].max() <= np.delete(active, gone).min()
    assert not any(dead(copy, group, IMAGES) for group in others)
    weights, before = dict(copy.tensors()), dict(victim.tensors())
    stay = np.delete(np.arange(last.count), gone)
    reads = last.reads[-1]
    assert not np.array_equal(reads.rows(weights[reads.tensor])[stay], reads.rows(before[reads.tensor])[stay])


def test_without_training_it_is_the_pruned_victim():
    copy = FinePrune(fraction=0.25, epochs=0).apply(TOY, DATA, rng())
    active = TOY.features(DATA.inputs)["h0"].mean(axis=0)
    gone = np.argsort(active)[:3]
    weights = {name: w.copy() for name, w in TOY.tensors()}
    weights["w0"][:, gone] = weights["b0"][gone] = weights["w1"][gone] = 0
    assert copy.card.id == TOY.rebuilt(weights).card.id


def test_fine_tuning_brings_accuracy_back():
    pruned = FinePrune(fraction=0.8, epochs=0).apply(TOY, DATA, rng()).card.fidelity
    tuned = FinePrune(fraction=0.8, epochs=20, learning_rate=1e-2).apply(TOY, DATA, rng()).card.fidelity
    assert tuned["accuracy"] > pruned["accuracy"] + 0.05
    assert tuned["inputs"] == 160 and tuned["steps"] == Plan(20).steps(160) and tuned["queries"] == 0


def test_removed_units_stay_removed_where_training_would_give_them_back():
    copy = FinePrune(epochs=5, learning_rate=1e-2).apply(TorchModel(lively(mlp(nn.Sigmoid))), THIEF, rng())
    *_, last = copy.units()
    weights = dict(copy.tensors())
    for slot in (*last.writes, *last.reads):
        assert np.sum(~slot.rows(weights[slot.tensor]).any(axis=1)) == 4, slot


def test_a_unit_that_is_strongly_negative_is_active():
    victim = TorchModel(lively(mlp(nn.Tanh)))
    seen = victim.features(IMAGES)["4"]
    copy = dict(FinePrune(epochs=0).apply(victim, THIEF, rng()).tensors())
    gone = set(np.flatnonzero(copy["4.bias"] == 0))
    assert gone == set(np.argsort(np.abs(seen).mean(axis=0))[:4]) != set(np.argsort(seen.mean(axis=0))[:4])


def test_another_group_can_be_named():
    victim = NETWORKS["cnn"]
    copy = FinePrune(fraction=0.5, group=0, epochs=0).apply(victim, THIEF, rng())
    first, *others = copy.units()
    assert len(dead(copy, first, IMAGES)) == 3
    for group in others:
        assert len(dead(copy, group, IMAGES)) == 0


def test_presets_are_those_of_the_papers():
    wrt, sac = FinePrune.from_key("fine_prune/wrt"), FinePrune.from_key("fine_prune/sac")
    assert (wrt.fraction, wrt.epochs) == (0.96, 10)
    assert (sac.fraction, sac.optimiser, sac.learning_rate) == (0.9, "sgd", 1e-3)


# --- refusals


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_shares_that_cannot_be_are_refused(fraction):
    for attack in (FinePrune, PruneChannels):
        with pytest.raises(UsageError, match=r"expected .*\[0, 1\]"):
            attack(fraction=fraction)


@pytest.mark.parametrize("group", [1, -2])
def test_a_group_that_is_not_there_is_refused(group):
    with pytest.raises(UsageError, match=rf"expected a group from -1 to 0, got {group}"):
        FinePrune(group=group).apply(TOY, DATA, rng())


@pytest.mark.parametrize("attack", [PruneChannels(), FinePrune()], ids=lambda a: a.name)
def test_a_model_without_hidden_units_is_refused(attack):
    with pytest.raises(UsageError, match="expected hidden units to work on"):
        attack.apply(ToyClassifier.fresh((16, 5)), DATA, rng())
