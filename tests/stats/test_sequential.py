"""The path test: known answers, then the laws that make looking early safe."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minutia.stats import Standardiser, path_p, path_threshold, rank_p, running_max

scores = st.floats(-50, 50)
null_paths = arrays(float, st.tuples(st.integers(1, 30), st.just(4)), elements=scores)
paths = arrays(float, 4, elements=scores)


def test_the_suspect_meets_full_null_paths_at_its_first_look():
    null = np.array([[0.0, 3.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    assert path_p([1.5], null).p == 3 / 5
    assert path_p([1.5, 2.5], null).p == 2 / 5
    assert path_p([1.5, 9.0], null).p == path_p([1.5, 9.0], null).floor == 1 / 5


def test_the_threshold_known_answers():
    null = np.arange(99.0)[:, None] * [0.5, 1.0]
    assert path_threshold(null, 0.01) == 98.0
    assert path_threshold(null, 0.05) == 94.0
    assert path_threshold(null, 0.005) == math.inf


def test_noise_at_the_threshold_breaks_no_tie():
    null = np.full((19, 2), 0.3)
    assert path_p([0.1 + 0.2, 0.0], null).p == 1.0
    assert path_threshold(null + 1e-15, 0.05) == 0.3


def test_no_null_path_is_no_p():
    assert path_p([1.0], []).kind == path_p([1.0], np.empty((0, 3))).kind == "none"
    assert path_threshold([], 0.01) == math.inf


@given(paths, null_paths)
def test_the_p_value_only_falls(seen, null):
    ps = [path_p(seen[:look], null).p for look in (1, 2, 3, 4)]
    assert ps == sorted(ps, reverse=True)


@given(paths, null_paths, st.sampled_from([0.05, 0.1, 0.29, 0.5]))
def test_exceeding_the_threshold_is_deciding(seen, null, alpha):
    """Scores here are apart by more than the rounding, or equal."""
    seen, null = np.round(seen, 3), np.round(null, 3)
    assert (path_p(seen, null).p <= alpha) == bool(running_max(seen)[-1] > path_threshold(null, alpha))


@given(paths, null_paths, st.randoms(use_true_random=False))
def test_the_order_of_nulls_and_of_looks_does_not_matter_at_the_end(seen, null, random):
    rows, looks = random.sample(range(len(null)), len(null)), random.sample(range(4), 4)
    assert path_p(seen[looks], null[rows][:, looks]) == path_p(seen, null)


@given(st.floats(-50, 50), arrays(float, 20, elements=scores))
def test_one_look_is_the_rank_test(seen, null):
    assert path_p([seen], null[:, None]) == rank_p(seen, null)


def test_running_max_known_answer():
    assert running_max([[0.0, 2.0, 1.0], [3.0, 1.0, 4.0]]).tolist() == [[0.0, 2.0, 2.0], [3.0, 3.0, 4.0]]


@pytest.mark.parametrize(("seen", "null"), [([], [[1.0]]), ([1.0, 2.0], [[1.0]]), ([[1.0]], [[1.0]]), ([1.0], [1.0])])
def test_paths_that_do_not_fit_are_refused(seen, null):
    with pytest.raises(ValueError, match="expected"):
        path_p(seen, null)


@pytest.mark.parametrize(("seen", "null"), [([math.nan], [[1.0]]), ([1.0], [[math.nan]])])
def test_a_look_that_was_not_measured_is_refused(seen, null):
    with pytest.raises(ValueError, match="NaN"):
        path_p(seen, null)


def test_spent_models_are_standardised_to_mean_0_and_sd_1():
    spent = np.random.default_rng(0).normal([3.0, 100.0], [0.5, 20.0], (30, 2))
    standard = Standardiser.fit(spent).transform(spent)
    assert standard.mean(axis=0) == pytest.approx([0, 0], abs=1e-9)
    assert standard.std(axis=0, ddof=1) == pytest.approx([1, 1])


def test_the_binomial_floor_known_answer():
    """Twenty spent models that never match: q = .5/21, over 10 and 40 points."""
    q = 0.5 / 21
    fitted = Standardiser.fit(np.zeros((20, 2)), asked=[10, 40])
    assert fitted.sd == pytest.approx([math.sqrt(q * (1 - q) / 10), math.sqrt(q * (1 - q) / 40)])


def test_the_floor_yields_to_models_that_differ():
    spent = np.array([[0.2], [0.8], [0.5]])
    assert Standardiser.fit(spent, asked=[1000]).sd == pytest.approx([0.3])


@pytest.mark.parametrize("level", [0.0, 1e-8, 0.1 + 0.2, 1e8])
def test_spent_models_that_agree_give_a_usable_scale(level):
    fitted = Standardiser.fit(np.full((20, 3), level))
    assert (fitted.sd > 0).all() and np.isfinite(fitted.transform([level * 2 + 1] * 3)).all()
    assert fitted.transform(fitted.mean + 1e-16 * level) == pytest.approx(np.zeros(3), abs=1e-3)


def test_one_look_that_agrees_borrows_the_scale_of_all():
    spent = np.column_stack([np.full(20, 0.5), np.linspace(0, 1, 20)])
    assert Standardiser.fit(spent).sd[0] == pytest.approx(1e-3 * spent.std())


def test_columns_of_other_units_do_not_share_a_scale():
    spent = np.random.default_rng(0).normal(size=(20, 2, 3)) * [[1e-6], [1e6]]
    assert Standardiser.fit(spent).sd == pytest.approx(spent.std(axis=0, ddof=1))


def test_a_path_so_far_is_standardised_by_its_looks():
    fitted = Standardiser(np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 4.0]))
    assert fitted.transform([3.0, 3.0]).tolist() == [3.0, 1.0]
    assert fitted.transform(np.ones((5, 2, 3))).shape == (5, 2, 3)


def test_columns_are_stacked():
    stacked = Standardiser.stack([Standardiser(np.zeros(2), np.ones(2)), Standardiser(np.ones(2), np.full(2, 4.0))])
    assert stacked.transform([[1.0], [5.0]]).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(
    "call",
    [
        lambda: Standardiser(np.zeros(2), np.zeros(2)),
        lambda: Standardiser(np.zeros(2), np.ones(3)),
        lambda: Standardiser(np.full(2, math.nan), np.ones(2)),
        lambda: Standardiser.fit([[0.5, 0.5]]),
        lambda: Standardiser.fit([0.5, 0.5]),
        lambda: Standardiser.fit([[0.5], [math.nan]]),
        lambda: Standardiser.fit([[0.5], [0.6]], asked=[0]),
        lambda: Standardiser.fit([[0.5], [1.6]], asked=[10]),
        lambda: Standardiser.fit([[0.5], [0.6]], floor=0.0),
        lambda: Standardiser(np.zeros(2), np.ones(2)).transform([1.0, 2.0, 3.0]),
        lambda: Standardiser(np.zeros(2), np.ones(2)).transform([]),
        lambda: Standardiser(np.zeros(2), np.ones(2)).transform(1.0),
    ],
)
def test_standardisers_without_a_scale_are_refused(call):
    with pytest.raises(ValueError, match="got"):
        call()
