"""Known answers and laws of combining."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minutia.stats import (
    Significance,
    Standardiser,
    bonferroni,
    calibrators_needed,
    cluster_p,
    combine_rank_exact,
    complete_columns,
    fisher,
    holm,
    joint_maximum,
    path_p,
    rank_p,
)

ps = st.lists(st.floats(1e-6, 1), min_size=1, max_size=12)
none = Significance(None, None, "none")


def plain(k, looks=None):
    shape = (k,) if looks is None else (k, looks)
    return Standardiser(np.zeros(shape), np.ones(shape))


def ranked(p, floor=1e-9):
    return Significance(p, floor, "rank")


def exact(p, floor=1e-12):
    return Significance(p, floor, "exact")


def test_the_joint_maximum_known_answer():
    null = [[0.1, 5.0], [2.0, 0.0], [0.0, 1.0]]
    assert joint_maximum([3.0, 0.0], null, plain(2)).p == 2 / 4
    assert joint_maximum([3.0, 0.0], null, Standardiser(np.zeros(2), np.array([1.0, 10.0]))).p == 1 / 4


def test_one_column_is_the_rank_test_and_looks_make_it_the_path_test():
    rng = np.random.default_rng(1)
    null = rng.normal(size=(30, 1, 4))
    assert joint_maximum([1.0], null[:, :, 0], plain(1)) == rank_p(1.0, null[:, 0, 0])
    assert joint_maximum([[1.0, 0.5]], null, plain(1, 4)) == path_p([1.0, 0.5], null[:, 0])


def test_a_standardiser_per_column_is_the_same_as_one_for_all():
    rng = np.random.default_rng(2)
    spent, null, seen = rng.normal(size=(20, 3, 4)), rng.normal(size=(30, 3, 4)), rng.normal(size=(3, 2))
    columns = [Standardiser.fit(spent[:, k]) for k in range(3)]
    assert joint_maximum(seen, null, columns) == joint_maximum(seen, null, Standardiser.stack(columns))


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_column_not_measured_is_dropped_for_everyone(missing):
    null = np.array([[0.1, 50.0], [0.2, 60.0], [0.3, 70.0]])
    assert joint_maximum([1.0, missing], null, plain(2)) == rank_p(1.0, null[:, 0])
    null[1, 1] = math.nan
    assert joint_maximum([1.0, 99.0], null, plain(2)) == rank_p(1.0, null[:, 0])
    assert joint_maximum([missing, 99.0], null, plain(2)) == none


def test_a_column_with_a_look_missing_is_dropped():
    null = np.zeros((5, 2, 3))
    null[0, 1, 2] = math.nan
    assert complete_columns(np.ones((2, 1)), null).tolist() == [True, False]
    assert joint_maximum([[1.0], [9.0]], null, plain(2, 3)).p == 1 / 6


def test_no_null_model_is_no_p():
    assert joint_maximum([1.0, 2.0], [], plain(2)) == none
    assert joint_maximum([1.0, 2.0], np.empty((0, 2)), plain(2)) == none


@pytest.mark.parametrize(
    ("suspect", "null", "columns"),
    [
        ([1.0], np.zeros((5, 2)), 1),
        ([1.0, 1.0], np.zeros((5, 2, 3)), 2),
        ([[1.0]], np.zeros((5, 1)), 1),
        ([1.0], np.zeros((5, 1)), 2),
    ],
)
def test_tables_that_do_not_fit_are_refused(suspect, null, columns):
    with pytest.raises(ValueError, match="expected"):
        joint_maximum(suspect, null, plain(columns))


@given(arrays(float, (3, 2), elements=st.floats(-9, 9)), st.randoms(use_true_random=False))
def test_neither_the_order_of_rows_nor_of_columns_matters(seen, random):
    null = np.random.default_rng(3).normal(size=(20, 3, 2))
    rows, columns = random.sample(range(20), 20), random.sample(range(3), 3)
    shuffled = joint_maximum(seen[columns], null[rows][:, columns], plain(3, 2))
    assert shuffled == joint_maximum(seen, null, plain(3, 2))


@given(arrays(float, 3, elements=st.floats(-9, 9)), st.integers(0, 2), st.floats(0, 5))
def test_a_larger_score_in_any_column_never_has_a_larger_p(seen, column, gain):
    null, more = np.random.default_rng(4).normal(size=(20, 3)), seen.copy()
    more[column] += gain
    assert joint_maximum(more, null, plain(3)).p <= joint_maximum(seen, null, plain(3)).p


def test_a_portfolio_known_answers():
    assert combine_rank_exact(ranked(0.09), exact(0.5)).p == pytest.approx(0.1)
    assert combine_rank_exact(ranked(0.5), exact(0.001)).p == pytest.approx(0.01)
    assert combine_rank_exact(ranked(1.0), exact(1.0)).p == 1.0


def test_the_split_stays_where_one_part_was_not_measured():
    assert combine_rank_exact(ranked(0.09), none).p == pytest.approx(0.1)
    alone = combine_rank_exact(none, exact(0.001))
    assert alone.p == pytest.approx(0.01) and alone.kind == "exact" and alone.decides
    assert combine_rank_exact(none, none) == none


def test_the_floor_of_a_portfolio_is_the_smaller_of_both():
    assert combine_rank_exact(ranked(0.5, floor=0.009), exact(0.5, floor=0.01)).floor == pytest.approx(0.01)
    assert combine_rank_exact(ranked(0.5, floor=0.009), exact(0.5, floor=1e-6)).floor == pytest.approx(1e-5)
    assert combine_rank_exact(ranked(0.99, floor=0.99), none).floor == 1.0
    assert combine_rank_exact(ranked(0.5), Significance(0.5, None, "exact")).floor is None


@pytest.mark.parametrize(("m", "decides"), [(111, True), (110, False)])
def test_a_portfolio_at_one_hundredth_needs_111_nulls(m, decides):
    assert (combine_rank_exact(rank_p(1.0, np.zeros(m)), exact(1.0)).p <= 0.01) is decides
    assert calibrators_needed(0.01, "portfolio") == 111


def test_parts_that_do_not_decide_are_refused():
    shown = Significance(1e-9, None, "extrapolated")
    for rank, part in ((shown, none), (none, shown), (exact(0.1), none), (none, ranked(0.1))):
        with pytest.raises(ValueError, match="kind"):
            combine_rank_exact(rank, part)


def test_bonferroni_and_holm_known_answers():
    assert bonferroni([0.01, 0.02, 0.5]) == pytest.approx(0.03)
    assert bonferroni([0.6, 0.9]) == 1.0
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(ps)
def test_holm_lies_between_the_p_values_and_bonferroni(values):
    adjusted = holm(values)
    assert (adjusted >= values).all() and (adjusted <= np.minimum(1, np.array(values) * len(values))).all()
    assert adjusted.min() == bonferroni(values)
    assert (np.diff(adjusted[np.argsort(values)]) >= 0).all()


def test_fisher_known_answers():
    from scipy.stats import combine_pvalues

    assert fisher([0.3]) == pytest.approx(0.3)
    assert fisher([0.01, 0.2, 0.7]) == pytest.approx(combine_pvalues([0.01, 0.2, 0.7], method="fisher").pvalue)
    # Two p-values: q (1 - ln q) for their product q.
    assert fisher([0.1, 0.02]) == pytest.approx(0.002 * (1 - math.log(0.002)))


@given(ps, st.randoms(use_true_random=False))
def test_combining_does_not_depend_on_the_order(values, random):
    shuffled = random.sample(values, len(values))
    assert bonferroni(shuffled) == bonferroni(values)
    assert fisher(shuffled) == pytest.approx(fisher(values))


@pytest.mark.parametrize("combine", [bonferroni, holm, fisher])
@pytest.mark.parametrize("values", [[], [0.5, math.nan], [1.5], [-0.1], [[0.5]]])
def test_p_values_that_are_none_are_refused(combine, values):
    with pytest.raises(ValueError, match="expected"):
        combine(values)


def test_fisher_refuses_the_p_of_a_forgotten_plus_one():
    with pytest.raises(ValueError, match=r"\+ 1"):
        fisher([0.0, 0.5])


def test_the_worst_cluster_speaks():
    null, names = [0.1] * 99 + [0.1] * 18 + [0.9], ["far"] * 99 + ["near"] * 19
    found = cluster_p(0.5, null, names)
    assert (found.p, found.floor) == (2 / 20, 1 / 20)
    assert cluster_p(1.0, null, names).p == 1 / 20
    assert cluster_p(1.0, [], []) == none


def test_one_cluster_is_the_rank_test():
    assert cluster_p(0.5, [0.4, 0.6, 0.1], ["a"] * 3) == rank_p(0.5, [0.4, 0.6, 0.1])


@given(
    st.floats(-9, 9),
    arrays(float, 12, elements=st.floats(-9, 9)),
    st.lists(st.sampled_from("abc"), min_size=12, max_size=12),
)
def test_no_cluster_is_less_alike_than_the_answer(seen, null, names):
    found = cluster_p(seen, null, names)
    assert all(rank_p(seen, null[np.array(names) == name]).p <= found.p for name in set(names))


@pytest.mark.parametrize(("null", "names"), [([0.1, 0.2], ["a"]), ([[0.1]], [["a"]])])
def test_clusters_that_do_not_fit_are_refused(null, names):
    with pytest.raises(ValueError, match="cluster name"):
        cluster_p(0.5, null, names)
