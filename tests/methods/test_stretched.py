"""Stretched points: the way across, the interval between two pools, composites with thresholds of their own."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from handmade import fingerprint, matching
from minutia.checks import check_method, toy_bench
from minutia.core.access import Access
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import ModelCard
from minutia.methods.classifiers.grouped import GROUP
from minutia.methods.classifiers.stretched import (
    THRESHOLD,
    Reach,
    Stretched,
    cross,
    drawn,
    fitted_thresholds,
    interval,
    objective,
)
from minutia.models.toy import ToyClassifier

LINEAR = ToyClassifier({"w0": np.eye(3), "b0": np.zeros(3)})
"""Three classes whose logits are the three inputs."""


@given(hnp.arrays(np.float64, (4, 5), elements=st.integers(-40, 40).map(lambda i: i / 8)), st.floats(0, 3))
def test_the_slope_is_the_derivative_of_the_loss(logits, flatten):
    rng = np.random.default_rng(0)
    logits = logits + rng.normal(0, 1e-3, logits.shape)  # off the kinks
    goal = np.array([0, 1, 2, 4])
    _, slope = objective(logits, goal, flatten)
    for column in range(5):
        step = 1e-6 * np.eye(5)[column]
        ahead, behind = (objective(logits + sign * step, goal, flatten)[0] for sign in (1, -1))
        np.testing.assert_allclose(slope[:, column], (ahead - behind) / 2e-6, atol=1e-4)


def test_points_lie_just_across_by_the_shortest_way():
    starts = np.array([[0.9, 0.2, 0.1], [0.1, 0.7, 0.0]], np.float32)
    found = cross(LINEAR, starts, np.array([1, 0]), 0.0, (0.0, 1.0))
    lead = found[[0, 1], [1, 0]] - found[[0, 1], [0, 1]]
    assert ((lead >= 0) & (lead < 0.01)).all()
    np.testing.assert_allclose(found, [[0.55, 0.55, 0.1], [0.4, 0.4, 0.0]], atol=0.01)


def test_flattening_leads_to_where_all_other_classes_meet():
    def spread(flatten):
        model = ToyClassifier({"w0": np.eye(5), "b0": np.zeros(5)})
        starts = np.random.default_rng(0).random((50, 5), dtype=np.float32)
        points = cross(model, starts, starts.argmin(axis=1), flatten, (0.0, 1.0))
        return np.sort(points, axis=1)[:, :-1].std(axis=1).mean()

    assert spread(1.0) < 0.5 * spread(0.0)


def answers(*entries, grid=5):
    """Models that follow the owner from these places on, on one row."""
    return np.array([[np.arange(grid) >= e] for e in entries])


@pytest.mark.parametrize(
    ("copies", "innocents", "tolerated", "wanted"),
    [
        ((0, 1, 2), (3, 4, 4), 0.0, (2, 3)),
        ((0, 1, 2), (3, 4, 4), 0.4, (1, 4)),  # two of three copies are enough, one of three innocents is tolerated
        ((0, 0, 5), (2, 2, 2), 0.0, (5, 2)),  # one copy never follows
        ((0, 0, 5), (2, 2, 2), 0.34, (0, 2)),
        ((1,) * 10, (0,) + (5,) * 9, 0.1, (1, 5)),
        ((1,) * 10, (0, 0) + (5,) * 8, 0.1, (1, 0)),  # two of ten are more than a tenth
    ],
)
def test_the_interval_is_bounded_by_copies_below_and_by_innocents_above(copies, innocents, tolerated, wanted):
    low, high = interval(answers(*copies), answers(*innocents), 1 - tolerated, 1 - tolerated)
    assert (int(low[0]), int(high[0])) == wanted


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=9),
    st.lists(st.integers(0, 6), min_size=1, max_size=9),
    st.floats(0.1, 1),
    st.floats(0.1, 1),
)
def test_inside_the_interval_both_shares_hold(copies, innocents, robust, unique):
    a, b = answers(*copies, grid=6), answers(*innocents, grid=6)
    low, high = interval(a, b, robust, unique)
    for place in range(int(low[0]), min(int(high[0]), 6)):
        assert a[:, 0, place].mean() >= robust - 1e-6
        assert b[:, 0, place].mean() <= 1 - unique + 1e-6


def test_factors_lie_inside_and_rows_without_room_are_dropped():
    copies = np.concatenate([answers(1, 1), answers(3, 3), answers(5, 5)], axis=1)
    innocents = np.concatenate([answers(4, 4), answers(2, 2), answers(5, 5)], axis=1)
    labels = np.zeros((3, 5), int)
    places, room = Stretched(grid=5).factors(Reach(np.zeros((3, 5, 1)), labels, copies, innocents))
    assert room.tolist() == [True, False, False] and 1 <= places[0] < 4


def test_factors_at_which_the_owner_answers_otherwise_are_of_no_use():
    labels = np.array([[0, -1, -1, 0, 0]])
    reach = Reach(np.zeros((1, 5, 1)), labels, answers(1, 1), answers(4, 4))
    places, room = Stretched(grid=5).factors(reach)
    assert room[0] and places[0] == 3


@given(hnp.arrays(int, (6, 3), elements=st.integers(0, 4)), hnp.arrays(int, (6, 3), elements=st.integers(0, 4)))
def test_no_other_threshold_separates_the_pools_better(copies, innocents):
    found = fitted_thresholds(copies, innocents)
    best = [max((copies[:, g] >= t).mean() - (innocents[:, g] >= t).mean() for t in range(1, 5)) for g in range(3)]
    got = [(copies[:, g] >= t).mean() - (innocents[:, g] >= t).mean() for g, t in enumerate(found)]
    assert (found >= 1).all()
    reachable = [max(copies.max(), 1) >= t for t in found]
    assert all(reachable)
    np.testing.assert_array_less(np.array(best) - 1e-9, np.maximum(got, 0) + 1e-9)


def test_composites_count_by_their_own_thresholds():
    arrays = {GROUP: np.repeat(np.arange(3), 4), THRESHOLD: np.array([2, 4, 1]) / 4}
    fp = replace(fingerprint(12), arrays=arrays)
    method = Stretched(probes=40, composite=4)
    assert method.score(fp, matching(fp, "s", {0, 1, 4, 5, 6})) == pytest.approx(1 / 3)
    assert method.score(fp, matching(fp, "s", {0, 1, 4, 5, 6, 7, 11})) == 1
    assert method.score(fp, matching(fp, "s", {0})) == 0


def test_models_are_drawn_from_all_kinds_in_turn():
    def model(kind, seed):
        found = ToyClassifier.fresh((2, 2), seed=seed)
        found.card = ModelCard(f"{kind}{seed}", "r", kind)
        return found

    some = drawn([model("a", i) for i in range(90)] + [model("b", i) for i in range(5)])
    assert [m.card.recipe for m in some[:10]] == ["a", "b"] * 5 and len(some) == 48


# --- enrolling


@pytest.fixture(scope="module")
def bench():
    return toy_bench()


SMALL = Stretched(probes=40, oversample=6)


@pytest.fixture(scope="module")
def enrolled(bench):
    return SMALL.extract(bench.owner, bench.material, seed=1)


def test_models_that_chose_the_factors_do_not_set_the_scale(bench, enrolled):
    _, screen = bench.material.parted()
    assert {o.subject.root for o in enrolled.reference} == {m.card.root for m in screen.unrelated}
    assert enrolled.spent == {m.card.root for m in bench.material.unrelated}


def test_a_copy_matches_and_innocents_do_not(bench, enrolled):
    copy = bench.owner.rebuilt({n: w * np.float32(1.01) for n, w in bench.owner.tensors()})
    theirs = [SMALL.score(enrolled, SMALL.asked(m, enrolled.probes)) for m in bench.innocents]
    assert SMALL.score(enrolled, SMALL.asked(copy, enrolled.probes)) > 0.9 > max(theirs)


def test_composites_are_groups_of_one_input_towards_different_classes(bench):
    method = Stretched(probes=40, composite=4, flatten=1.0, oversample=8)
    fp = method.extract(bench.owner, bench.material, seed=1)
    groups = fp.answers.labels.reshape(-1, 4)
    assert np.mean([len(set(row[row >= 0])) for row in groups]) > 2
    assert len(fp.arrays[THRESHOLD]) == len(groups) and set(fp.arrays[THRESHOLD] * 4) <= {1, 2, 3, 4}


def test_without_copies_noisy_twins_stand_in(bench):
    fp = SMALL.extract(bench.owner, replace(bench.material, derived=[]), seed=1)
    assert len(fp.probes) >= 10


def test_few_unrelated_models_are_one_sentence(bench):
    with pytest.raises(UsageError, match="4 or more unrelated models"):
        SMALL.extract(bench.owner, replace(bench.material, unrelated=bench.material.unrelated[:3]))


def test_an_owner_without_gradients_is_refused(bench):
    class Box:
        spec, card, access = "box", ModelCard("b", "b"), Access.LABELS | Access.SCORES

    with pytest.raises(UsageError, match="labels, gradients for stretched, got box with"):
        SMALL.extract(Box(), bench.material)


def test_no_room_between_the_pools_is_one_sentence(bench):
    """Innocent models that answer exactly like the owner leave nothing that would be unique."""
    twins = []
    for seed in range(8):
        twin = ToyClassifier(dict(bench.owner.tensors()))
        twin.card = ModelCard(f"t{seed}", f"t{seed}")
        twins.append(twin)
    same = Material(bench.material.inputs, bench.material.labels, unrelated=twins, levels=256)
    with pytest.raises(ModelError, match="leave room between copies and innocent models, got 0"):
        SMALL.extract(bench.owner, same)


@pytest.mark.parametrize(
    "wrong",
    [
        {"probes": 9},
        {"composite": 0},
        {"probes": 30, "composite": 4},
        {"grid": 1},
        {"furthest": 1.0},
        {"furthest": float("nan")},
        {"robust": 0.0},
        {"unique": 1.5},
        {"flatten": -1.0},
        {"oversample": 0},
    ],
)
def test_parameters_that_cannot_work_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        Stretched(**wrong)


def test_the_contract_is_kept_by_composites():
    check_method(Stretched(probes=40, composite=4, flatten=1.0, oversample=12))
