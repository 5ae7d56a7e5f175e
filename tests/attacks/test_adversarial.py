"""Attacks that move the boundary: worst-case inputs, boundary points, and what they do to a model."""

from dataclasses import replace

import numpy as np
import pytest

from minutia import catalog
from minutia.attacks.adversarial import AdversarialTraining, BoundaryTraining, nearest
from minutia.attacks.crafting import across, gradients, probabilities, worst_case
from minutia.checks import toy_bench
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.probe import numbered
from minutia.models.toy import ToyClassifier

BENCH = toy_bench()
TOY, THIEF = BENCH.owner, BENCH.thief
PLANE = ToyClassifier({"w0": np.array([[1.0, -1.0], [0.0, 0.0]]), "b0": np.array([-0.5, 0.5])})
"""Class 0 where the first number is above 0.5, class 1 below."""
SQUARE = Material(np.zeros((1, 2)), np.zeros(1, int))


def rng(seed=0):
    return np.random.default_rng(seed)


def labels_of(model, inputs):
    return model.ask(numbered(inputs, {})).labels


# --- crafting


def test_worst_cases_lie_within_the_reach_and_the_box_and_are_worse_than_noise():
    x, y = THIEF.inputs, THIEF.labels
    found = worst_case(TOY, x, y, THIEF, rng(), epsilon=0.1, step=0.02, iterations=10)
    assert np.abs(found - x).max() <= 0.1 + 1e-6 and found.min() >= 0 and found.max() <= 1
    noisy = np.clip(x + rng().choice([-0.1, 0.1], x.shape), 0, 1)
    right = [np.mean(labels_of(TOY, some) == y) for some in (x, noisy, found)]
    assert right[2] < right[1] - 0.1 and right[2] < right[0] - 0.1


def test_a_worst_case_on_a_plane_is_the_corner():
    start = np.array([[0.7, 0.3]], np.float32)
    found = worst_case(PLANE, start, np.array([0]), SQUARE, rng(), epsilon=0.15, step=0.05, iterations=10)
    assert found[0, 0] == pytest.approx(0.55)
    wide = replace(SQUARE, bounds=(-1.0, 1.0))  # twice the range: twice the reach
    assert worst_case(PLANE, start, np.array([0]), wide, rng(), epsilon=0.15, step=0.05, iterations=10)[
        0, 0
    ] == pytest.approx(0.4)


def test_the_way_across_a_plane_is_straight_and_ends_at_the_boundary():
    starts = np.array([[0.9, 0.2], [0.1, 0.6]], np.float32)
    found, reached = across(PLANE, starts, np.array([0, 1]), np.array([1, 0]), SQUARE)
    np.testing.assert_allclose(found, [[0.5, 0.2], [0.5, 0.6]], atol=1e-3)
    assert reached.all()


def test_a_class_that_is_nowhere_is_never_reached():
    lonely = ToyClassifier({"w0": np.zeros((2, 2)), "b0": np.array([5.0, 0.0])})
    found, reached = across(lonely, np.full((3, 2), 0.5, np.float32), np.zeros(3, int), np.ones(3, int), SQUARE)
    assert not reached.any() and np.isfinite(found).all()


def test_gradients_of_many_rows_are_those_of_each_and_never_nan():
    x = np.repeat(THIEF.inputs, 4, axis=0)  # more than one batch

    def slope(logits, rows):
        return np.eye(5)[rows % 5]

    whole = gradients(TOY, x, slope)
    for row in (0, 255, 256, 639):
        _, pull_back = TOY.linearise(x[row : row + 1])
        np.testing.assert_allclose(whole[row], pull_back(np.eye(5)[[row % 5]])[0], atol=1e-6)
    lost = TOY.rebuilt({n: np.full_like(w, np.nan) for n, w in TOY.tensors()})
    assert np.isfinite(gradients(lost, x, slope)).all()
    assert probabilities(np.array([[np.inf, 0.0], [1e9, 0.0]])).tolist() == [[0.5, 0.5], [1.0, 0.0]]


# --- adversarial training


def test_adversarial_training_makes_the_copy_robust_and_keeps_its_accuracy(digits):
    victim, material = digits
    attack = AdversarialTraining(epochs=15)
    copy = attack.apply(victim, material, rng())
    x, y = material.held_out

    def robust(model):
        points = worst_case(model, x, y, material, rng(5), epsilon=0.1, step=0.025, iterations=10)
        return np.mean(labels_of(model, points) == y)

    plain = catalog.attack("fine_tune_all(epochs=15)").apply(victim, material, rng())
    assert robust(copy) > robust(victim) + 0.1 and robust(copy) > robust(plain) + 0.1
    assert copy.card.fidelity["accuracy_lost"] < 0.05
    assert copy.card.fidelity["steps"] == 15 * 7 and copy.card.fidelity["inputs"] == 400


def test_a_schedule_spans_all_epochs(digits):
    victim, material = digits
    made = [
        AdversarialTraining(epochs=epochs, schedule=schedule, iterations=1).apply(victim, material, rng()).card.id
        for epochs in (1, 4)
        for schedule in ("constant", "cosine")
    ]
    assert made[0] == made[1] and made[2] != made[3]


# --- boundary training


def test_boundary_points_are_where_two_classes_meet_and_keep_the_true_label():
    attack = BoundaryTraining(points=3)
    material = replace(THIEF, levels=None)
    found, true = attack.boundary(TOY, THIEF.inputs, THIEF.labels, material, rng())
    assert 300 < len(found) == len(true) <= 480
    _, named = attack.boundary(TOY, THIEF.inputs, np.full(160, 3), material, rng())
    assert set(named) == {3} and set(true) == set(range(5))
    two = np.sort(TOY.linearise(found)[0], axis=1)[:, -3:]
    typical = np.ptp(np.sort(TOY.linearise(THIEF.inputs)[0], axis=1)[:, -2:], axis=1).mean()
    assert np.median(np.minimum(two[:, 2] - two[:, 1], two[:, 2] - two[:, 0])) < 0.1 * typical


def test_training_on_boundary_points_moves_the_boundary_more_than_plain_training(digits):
    victim, material = digits
    starts = material.held_out[0][:100]
    own = labels_of(victim, starts)
    probes, _ = across(victim, starts, own, (own + 1) % 10, material)
    convicting = labels_of(victim, probes)
    disclosed = replace(material, disclosed=type(THIEF.disclosed)(probes, convicting))
    kept = {
        key: np.mean(labels_of(catalog.attack(key).apply(victim, disclosed, rng()), probes) == convicting)
        for key in ("fine_tune_all", "boundary_training", "boundary_training(known=probes)")
    }
    assert kept["boundary_training"] < kept["fine_tune_all"] - 0.05
    assert kept["boundary_training(known=probes)"] < kept["boundary_training"] - 0.05
    copy = BoundaryTraining(known="probes").apply(victim, disclosed, rng())
    assert copy.card.fidelity["accuracy_lost"] < 0.05
    assert copy.card.fidelity["inputs"] > 400 + 100 * 5


def test_neighbours_of_known_probes_get_the_label_of_the_nearest_own_input():
    attack = BoundaryTraining(known="probes", around=3, spread=0.02)
    found, named = attack.neighbours(THIEF.inputs, THIEF.labels, THIEF, rng())
    probes = THIEF.disclosed.inputs
    assert len(found) == 4 * len(probes) and np.array_equal(found[: len(probes)], THIEF.stored(probes))
    assert np.abs(found[len(probes) : 2 * len(probes)] - probes).max() < 0.15
    distances = ((found[:, None] - THIEF.inputs[None]) ** 2).sum(axis=(2, 3, 4))
    assert np.array_equal(named, THIEF.labels[distances.argmin(axis=1)])
    assert nearest(THIEF.inputs[:5], THIEF.inputs).tolist() == [0, 1, 2, 3, 4]


# --- refusals and presets


@pytest.mark.parametrize("attack", [AdversarialTraining(), BoundaryTraining()], ids=lambda a: a.name)
def test_text_has_no_worst_case(attack):
    with pytest.raises(UsageError, match="got text"):
        attack.apply(TOY, replace(THIEF, content="text"), rng())


def test_what_is_missing_is_named():
    with pytest.raises(UsageError, match="disclosed probes for boundary_training"):
        BoundaryTraining(known="probes").apply(TOY, replace(THIEF, disclosed=None), rng())
    with pytest.raises(UsageError, match="1 or more epochs"):
        AdversarialTraining(epochs=0).apply(TOY, THIEF, rng())


@pytest.mark.parametrize(
    "key",
    [
        "adversarial_training(epsilon=0.0)",
        "adversarial_training(step=2.0)",
        "adversarial_training(iterations=0)",
        "boundary_training(points=0)",
        "boundary_training(known=nothing)",
        "boundary_training(spread=-1.0)",
    ],
)
def test_parameters_that_cannot_work_are_refused(key):
    with pytest.raises(UsageError, match="expected"):
        catalog.attack(key)


def test_presets_are_the_numbers_of_the_papers():
    found = [catalog.attack(f"adversarial_training/wrt-{name}") for name in ("001", "010", "025")]
    assert [(a.epsilon, a.step, a.iterations, a.epochs) for a in found] == [
        (0.01, 0.01, 40, 5),
        (0.1, 0.01, 40, 5),
        (0.25, 0.01, 40, 5),
    ]
