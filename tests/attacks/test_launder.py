"""Laundering: the function stays to float noise, and the weights move; on toys and on torch networks of many kinds."""

from dataclasses import replace

import numpy as np
import pytest

from minutia.attacks.launder import FoldNorms, PermuteUnits, RescaleUnits, folded, largest_change
from minutia.checks import Bench, check_attack, toy_bench
from minutia.core.attack import chained
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.probe import numbered
from minutia.core.units import Norm, Slot, Units
from minutia.models.torch import TorchModel
from minutia.models.toy import ToyClassifier
from networks import IMAGES, cnn, gated, lively, mlp, mobile, nn, norms_first, resnet

BENCH = toy_bench()
THIEF = Material(IMAGES, np.arange(6) % 5, held_out=(IMAGES, np.arange(6) % 5))
NETWORKS = {
    "mlp": mlp(),
    "mlp, batch norm": mlp(norm=nn.BatchNorm1d),
    "cnn": cnn(),
    "cnn, batch norm": cnn(nn.BatchNorm2d),
    "cnn, no bias": cnn(nn.BatchNorm2d, bias=False),
    "resnet": resnet(),
    "resnet, padded shortcuts": resnet("A"),
    "resnet, norms first": norms_first(),
    "mobile": mobile(),
    "gated": gated(),
}
VICTIMS = {name: TorchModel(lively(module)) for name, module in NETWORKS.items()}
NORMED = [name for name, victim in VICTIMS.items() if any(group.norms for group in victim.units())]
WASH = chained([PermuteUnits(), RescaleUnits(), FoldNorms(), PermuteUnits()])


def rng(seed=0):
    return np.random.default_rng(seed)


def logits(model, inputs=IMAGES):
    return model.ask(numbered(inputs, {})).logits


@pytest.mark.parametrize("attack", [PermuteUnits(), RescaleUnits()], ids=lambda a: a.name)
def test_attacks_keep_the_contract_on_the_toy_bench(attack):
    check_attack(attack)


def test_folding_keeps_the_contract_on_a_network_with_norms():
    victim = VICTIMS["cnn, batch norm"]
    check_attack(FoldNorms(), Bench(victim, THIEF, THIEF, ()))


@pytest.mark.parametrize("name", VICTIMS)
@pytest.mark.parametrize("attack", [PermuteUnits(), RescaleUnits(), RescaleUnits(strength=300.0)], ids=lambda a: a.key)
def test_the_function_stays_and_the_weights_move(name, attack):
    victim = VICTIMS[name]
    copy = attack.apply(victim, THIEF, rng())
    before, after = logits(victim), logits(copy)
    found = copy.card.fidelity
    assert np.abs(after - before).max() < 1e-4 * np.ptp(before)
    assert found["largest_change"] == pytest.approx(np.abs(after - before).max() / np.ptp(before))
    assert found["agreement"] == 1 and found["weights_changed"] > 0.01 and found["weight_distance"] > 0.02


@pytest.mark.parametrize("name", NORMED)
def test_folded_norms_do_nothing(name):
    victim = VICTIMS[name]
    copy = FoldNorms().apply(victim, THIEF, rng())
    before, after = dict(victim.tensors()), dict(copy.tensors())
    for norm in (norm for group in victim.units() for norm in group.norms):
        assert not np.allclose(before[norm.scale], 1) and not np.allclose(before[norm.mean], 0)
        np.testing.assert_array_equal(after[norm.scale], 1)
        np.testing.assert_array_equal(after[norm.mean], 0)
        np.testing.assert_allclose(after[norm.variance] + norm.epsilon, 1, rtol=1e-6)
        assert after[norm.shift].any() == (norm.bias == "")
    assert np.abs(logits(copy) - logits(victim)).max() < 1e-4 * np.ptp(logits(victim))
    assert np.abs(logits(copy)).max() > 0


@pytest.mark.parametrize("name", ["cnn, batch norm", "resnet", "mobile"])
def test_launderings_can_follow_each_other(name):
    copy = WASH.apply(VICTIMS[name], THIEF, rng())
    assert largest_change(VICTIMS[name], copy, IMAGES) < 1e-4
    assert copy.card.root == VICTIMS[name].card.root and copy.card.parents == (VICTIMS[name].card.id,)


def test_permuting_a_toy_only_moves_numbers():
    copy = PermuteUnits().apply(BENCH.owner, BENCH.thief, rng())
    for (name, before), (_, after) in zip(BENCH.owner.tensors(), copy.tensors(), strict=True):
        np.testing.assert_array_equal(np.sort(after, axis=None), np.sort(before, axis=None))
        assert np.array_equal(before, after) == (name == "b1"), name
    order = [np.flatnonzero(dict(BENCH.owner.tensors())["b0"] == b).item() for b in dict(copy.tensors())["b0"]]
    assert sorted(order) == list(range(12))
    shown = BENCH.owner.features(BENCH.thief.inputs)["h0"]
    np.testing.assert_allclose(copy.features(BENCH.thief.inputs)["h0"], shown[:, order], atol=1e-5)


def test_factors_are_positive_log_uniform_and_within_the_strength():
    factors = RescaleUnits(strength=4.0).factors(20000, rng())
    assert 0.25 <= factors.min() < 0.26 and 3.9 < factors.max() <= 4
    np.testing.assert_allclose(np.quantile(np.log(factors), [0.25, 0.5, 0.75]) / np.log(4), [-0.5, 0, 0.5], atol=0.03)


def test_rescaling_a_toy_multiplies_what_makes_a_unit_and_divides_what_reads_it():
    toy = ToyClassifier({"w0": np.eye(2), "b0": np.ones(2), "w1": np.eye(2), "b1": np.ones(2)})
    copy = dict(RescaleUnits(strength=3.0).apply(toy, Material(np.eye(2), np.arange(2)), rng(5)).tensors())
    factors = RescaleUnits(strength=3.0).factors(2, rng(5))
    np.testing.assert_allclose(np.diag(copy["w0"]), factors, rtol=1e-6)
    np.testing.assert_allclose(copy["b0"], factors, rtol=1e-6)
    np.testing.assert_allclose(np.diag(copy["w1"]), 1 / factors, rtol=1e-6)
    np.testing.assert_array_equal(copy["b1"], 1)


def test_a_norm_folds_as_far_as_the_bias_allows():
    tensors = {"w": [[3.0], [1.0]], "b": [5.0, 0.0], "scale": [2.0, 1], "shift": [1.0, 1], "mean": [1.0, 0]}
    tensors = {name: np.array(value) for name, value in {**tensors, "variance": [3.0, 8.0]}.items()}
    norm = Norm("scale", "shift", "mean", "variance", "w", "b", epsilon=1.0)
    found = folded(tensors, norm)
    np.testing.assert_allclose(found["w"], [[3.0], [1 / 3]])
    np.testing.assert_allclose(found["b"], [5.0, 1.0])  # 2 * (5 - 1) / 2 + 1, and 1 * (0 - 0) / 3 + 1
    assert not found["shift"].any()
    without_bias = folded(tensors, replace(norm, bias=""))
    assert "b" not in without_bias
    np.testing.assert_allclose(without_bias["shift"], [0.0, 1.0])  # 1 - 1 * 2 / 2, and 1 - 0


# --- refusals


def test_a_model_without_norms_cannot_fold():
    for victim in (BENCH.owner, VICTIMS["cnn"]):
        with pytest.raises(UsageError, match=r"expected batch norms .* for fold_norms, got a model without"):
            FoldNorms().apply(victim, THIEF if victim is not BENCH.owner else BENCH.thief, rng())


@pytest.mark.parametrize("attack", [PermuteUnits(), RescaleUnits(), FoldNorms()], ids=lambda a: a.name)
def test_a_model_without_hidden_units_is_refused(attack):
    with pytest.raises(UsageError, match=rf"hidden units to work on for {attack.name}, got none in toy"):
        attack.apply(ToyClassifier.fresh((16, 5)), BENCH.thief, rng())


def test_other_activations_cannot_be_rescaled():
    victim = TorchModel(lively(mlp(nn.Tanh)))
    with pytest.raises(UsageError, match="expected hidden units between ReLUs"):
        RescaleUnits().apply(victim, THIEF, rng())
    assert largest_change(victim, PermuteUnits().apply(victim, THIEF, rng()), IMAGES) < 1e-4


@pytest.mark.parametrize("strength", [1.0, 0.5, 1e4, float("nan")])
def test_a_strength_that_cannot_work_is_refused(strength):
    with pytest.raises(UsageError, match="expected a strength above 1"):
        RescaleUnits(strength=strength)


def test_a_function_that_cannot_be_compared_is_not_vouched_for():
    with pytest.raises(UsageError, match="expected inputs to check"):
        PermuteUnits().apply(BENCH.owner, Material(BENCH.thief.inputs[:0], BENCH.thief.labels[:0]), rng())


def test_a_function_that_moves_is_an_error():
    class Mistaken(ToyClassifier):
        def units(self):
            (group,) = super().units()
            return (Units("h0", group.count, group.writes, (Slot("w1", 0, scales=False),)),)

        def rebuilt(self, weights):
            return Mistaken(weights)

    victim = Mistaken(dict(BENCH.owner.tensors()))
    assert PermuteUnits().apply(victim, BENCH.thief, rng()).card.fidelity["largest_change"] < 1e-6
    with pytest.raises(ModelError, match="expected rescale_units to keep the answers"):
        RescaleUnits().apply(victim, BENCH.thief, rng())


def test_a_victim_that_has_diverged_is_an_error():
    broken = BENCH.owner.rebuilt({"b1": np.full(5, np.nan)})
    with pytest.raises(ModelError, match="to keep the answers"):
        PermuteUnits().apply(broken, replace(BENCH.thief, held_out=None), rng())
