"""What methods share that craft on many models: candidates, ensembles, ascent."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.checks import learning_bench
from minutia.core.access import Access
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.core.probe import numbered
from minutia.methods.classifiers.crafting import ascend, pulled
from minutia.methods.classifiers.ensembles import BATCH, answered, by_recipe, candidates, differentiable, enough
from minutia.models.toy import ToyClassifier

LINEAR = ToyClassifier({"w0": np.eye(3), "b0": np.zeros(3)})


def images(count=40, shape=(1, 4, 4)):
    return np.random.default_rng(3).random((count, *shape)).astype(np.float32)


def material(**more):
    given_ = {"inputs": images(), "labels": np.zeros(40, int), "levels": 256, **more}
    return Material(**given_)


# --- candidates


@given(
    count=st.integers(5, 60),
    bounds=st.sampled_from([(0.0, 1.0), (-1.0, 3.0)]),
    shape=st.sampled_from([(6,), (1, 4, 4), (2, 3, 5)]),
    levels=st.sampled_from([None, 16]),
)
def test_candidates_are_distinct_and_are_what_a_suspect_receives(count, bounds, shape, levels):
    low, high = bounds
    own = Material(low + (high - low) * images(shape=shape), np.zeros(40, int), bounds=bounds, levels=levels)
    found = candidates(own, count, np.random.default_rng(0))
    assert found.shape[1:] == shape and found.dtype == np.float32
    assert 0 < len(found) <= max(5, count)
    assert len(np.unique(found, axis=0)) == len(found)
    np.testing.assert_allclose(own.stored(found), found, atol=1e-6)


def test_a_fifth_of_the_candidates_are_natural_ones():
    own = material()
    rows = {x.tobytes() for x in own.stored(own.inputs)}
    found = candidates(own, 100, np.random.default_rng(0))
    assert 20 <= sum(x.tobytes() in rows for x in found) <= 24
    assert len(found) >= 96


def test_held_out_inputs_are_natural_ones_as_well():
    own = material(held_out=(1 - images(), np.zeros(40, int)))
    rows = {x.tobytes() for x in own.stored(own.held_out[0])}
    found = candidates(own, 150, np.random.default_rng(0))
    assert 5 <= sum(x.tobytes() in rows for x in found) <= 25


def test_of_text_every_token_is_that_of_some_input():
    tokens = np.random.default_rng(0).integers(0, 9, (30, 7)).astype(np.float32)
    own = Material(tokens, np.zeros(30, int), bounds=(0.0, 8.0), content="text")
    found = candidates(own, 60, np.random.default_rng(1))
    assert all(set(found[:, at]) <= set(tokens[:, at]) for at in range(7))


def test_candidates_come_from_the_generator_alone():
    one, two, other = (candidates(material(), 50, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_tiny_images_cannot_be_cut_and_are_left_whole():
    found = candidates(Material(images(shape=(1, 2, 2)), np.zeros(40, int)), 30, np.random.default_rng(0))
    assert found.shape[1:] == (1, 2, 2)


# --- ensembles


def test_many_points_are_asked_in_parts_and_answered_in_order():
    points = np.random.default_rng(0).random((BATCH + 7, 3)).astype(np.float32)
    assert answered(LINEAR, points).labels.tolist() == points.argmax(axis=1).tolist()


def test_models_without_gradients_stay_behind():
    class Box:
        spec, card, access = "box", ModelCard("b", "b"), Access.LABELS

        def ask(self, probes):
            return LINEAR.ask(probes)

    other = ToyClassifier.fresh((3, 2), seed=1)  # two classes instead of three
    assert differentiable([Box(), LINEAR, other, Box()], LINEAR, np.zeros((1, 3), np.float32)) == [LINEAR]


def test_every_way_of_copying_is_a_group():
    made = [ToyClassifier.fresh((3, 3), seed=i) for i in range(5)]
    for model, recipe in zip(made, "abaab", strict=True):
        model.card = replace(model.card, recipe=recipe)
    assert by_recipe(made) == [[made[0], made[2], made[3]], [made[1], made[4]]]
    assert by_recipe([]) == []


def test_an_ensemble_that_is_too_small_says_how_many_are_needed():
    enough([LINEAR] * 3, 3, "copies", "make more")
    with pytest.raises(UsageError, match="expected 3 or more copies, got 2: make more"):
        enough([LINEAR] * 2, 3, "copies", "make more")


# --- ascent


def test_the_ascent_ends_where_the_loss_is_smallest():
    goal = np.array([[0.2, 0.9], [0.5, 0.1]], np.float32)
    found = ascend(np.full((2, 2), 0.5, np.float32), lambda x: x - goal, 400, 0.01, lambda x: np.clip(x, 0, 1))
    np.testing.assert_allclose(found, goal, atol=0.02)


def test_the_ascent_never_leaves_the_box_and_keeps_its_starts():
    starts = images(6, (3,))
    before = starts.copy()
    seen = []

    def away(x):
        seen.append(x.copy())
        return -np.ones_like(x)

    found = ascend(starts, away, 200, 0.1, lambda x: np.clip(x, 0, 1))
    assert all(((x >= 0) & (x <= 1)).all() for x in seen) and (found == 1).all()
    np.testing.assert_array_equal(starts, before)


def test_no_steps_change_nothing():
    starts = images(4, (3,))
    np.testing.assert_array_equal(ascend(starts, lambda x: x, 0, 0.1, lambda x: x), starts)


def test_rows_do_not_influence_one_another():
    starts = images(5, (3,))

    def gradient(x):
        return x**3 - 0.2

    together = ascend(starts, gradient, 50, 0.01, lambda x: np.clip(x, 0, 1))
    alone = [ascend(starts[[i]], gradient, 50, 0.01, lambda x: np.clip(x, 0, 1))[0] for i in range(5)]
    np.testing.assert_allclose(together, alone, atol=1e-7)


@given(st.integers(0, 50))
def test_what_is_pulled_back_is_the_derivative(seed):
    rng = np.random.default_rng(seed)
    model = ToyClassifier.fresh((4, 6, 3), seed=seed)
    at, slope = rng.random((3, 4)).astype(np.float32), rng.normal(size=(3, 3))
    found = pulled(model, at, lambda z: slope)
    step = 1e-3
    for column in range(4):
        ahead, behind = (model.linearise(at + sign * step * np.eye(4, dtype=np.float32)[column])[0] for sign in (1, -1))
        numeric = ((ahead - behind) / (2 * step) * slope).sum(axis=1)
        assert np.isclose(found[:, column], numeric, atol=0.02).mean() >= 2 / 3  # a kink may lie within a step


def test_the_bench_has_what_learning_needs():
    """The other files here rest on it: gradients everywhere, and none of the innocents among the spent."""
    bench = learning_bench()
    assert len(differentiable(bench.material.unrelated, bench.owner, bench.material.inputs)) == 40
    assert not {m.card.root for m in bench.innocents} & {m.card.root for m in bench.material.unrelated}
    assert {m.card.root for m in (*bench.material.derived, *bench.material.surrogates)} == {bench.owner.card.root}
    assert np.mean(bench.owner.ask(numbered(bench.thief.inputs, {})).labels == bench.thief.labels) > 0.6
