"""Known answers, then laws of the rank p-value."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.stats import (
    Significance,
    calibrators_needed,
    critical_rank,
    e_process_p,
    exact_binomial,
    extrapolated_beta_binomial,
    fixed_points_p,
    rank_p,
    redrawn_rate,
    rounded,
    type_one_bound,
    type_one_bound_over,
)

scores = st.floats(-1e6, 1e6, allow_nan=False)
nulls = st.lists(scores, min_size=1, max_size=40)


@pytest.mark.parametrize(("m", "floor"), [(6, 0.143), (19, 0.05), (59, 0.017), (99, 0.01), (999, 0.001)])
def test_the_floor_of_m_nulls(m, floor):
    best = rank_p(1.0, np.zeros(m))
    assert best.p == best.floor == pytest.approx(floor, abs=5e-4)


def test_ties_count_against_the_accuser():
    assert rank_p(0.5, [0.5, 0.5, 0.4, 0.6]).p == 4 / 5
    assert rank_p(0.5, [0.5] * 99).p == 1.0


def test_a_rank_p_of_one_hundredth_is_worth_five():
    assert rank_p(1.0, np.zeros(99)).e_value == 5.0


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_float_noise_breaks_no_tie(size):
    noisy = (0.1 + 0.2) * size
    assert noisy > 0.3 * size
    assert rank_p(noisy, [0.3 * size, 0.1 * size]).p == 2 / 3


def test_float_noise_around_zero_breaks_no_tie():
    assert rank_p(1e-17, [0.0, -0.5, 0.5]).p == 3 / 4


def test_a_difference_in_the_ninth_decimal_is_seen_and_in_the_tenth_is_not():
    assert rank_p(1.00000001, [1.0]).p == 1 / 2
    assert rank_p(1.000000001, [1.0]).p == 1.0
    assert rank_p(1.01, [1.0], decimals=2).p == 1.0


def test_rounding_meets_at_powers_of_ten():
    assert rounded([0.99999999999, 1.0, 1.00000000001], like=[1.0]).tolist() == [1.0, 1.0, 1.0]


def test_no_null_is_no_p():
    assert rank_p(0.7, []) == Significance(None, None, "none")
    assert e_process_p(1e6, m=0) == Significance(None, None, "none")


@pytest.mark.parametrize(("seen", "null"), [(math.nan, [0.1]), (0.1, [math.nan, 0.2]), (math.nan, []), (0.1, [[0.2]])])
def test_what_has_no_rank_is_refused(seen, null):
    with pytest.raises(ValueError, match="expected"):
        rank_p(seen, null)


@given(scores, nulls)
def test_p_lies_between_its_floor_and_one(seen, null):
    found = rank_p(seen, null)
    assert 1 / (len(null) + 1) == found.floor <= found.p <= 1


@given(scores, scores, nulls)
def test_a_larger_score_never_has_a_larger_p(one, other, null):
    low, high = sorted((one, other))
    assert rank_p(high, null).p <= rank_p(low, null).p


@given(scores, nulls, st.randoms(use_true_random=False))
def test_the_order_of_the_nulls_does_not_matter(seen, null, random):
    shuffled = random.sample(null, len(null))
    assert rank_p(seen, shuffled) == rank_p(seen, null)


@given(scores, nulls)
def test_rounding_never_helps_the_accuser(seen, null):
    unrounded = (1 + sum(s >= seen for s in null)) / (1 + len(null))
    assert rank_p(seen, null).p >= unrounded


@given(nulls, st.integers(1, 15))
def test_rounding_keeps_the_order_and_is_done_once(null, decimals):
    once = rounded(sorted(null), null, decimals)
    assert (np.diff(once) >= 0).all()
    assert (rounded(once, null, decimals) == once).all()


@pytest.mark.parametrize(
    ("kind", "measured", "decides"),
    [
        ("exact", None, True),
        ("rank", None, True),
        ("assumed", None, False),
        ("assumed", 0.012, True),
        ("extrapolated", None, False),
        ("extrapolated", 0.012, False),
    ],
)
def test_only_some_kinds_of_null_decide(kind, measured, decides):
    assert Significance(0.001, 0.001, kind, measured_bound=measured).decides is decides


def test_the_absence_of_a_null_never_decides():
    assert not Significance(None, None, "none").decides


@pytest.mark.parametrize(
    "fields",
    [
        {"p": 0.001, "floor": 0.01, "kind": "rank"},
        {"p": 1.2, "floor": None, "kind": "exact"},
        {"p": -0.1, "floor": None, "kind": "exact"},
        {"p": math.nan, "floor": None, "kind": "exact"},
        {"p": None, "floor": None, "kind": "rank"},
        {"p": 0.5, "floor": None, "kind": "none"},
        {"p": 0.5, "floor": 0.1, "kind": "asymptotic"},
        {"p": 0.5, "floor": 0.1, "kind": "rank", "e_value": -1.0},
        {"p": 0.5, "floor": 0.1, "kind": "rank", "full_error": 2.0},
        {"p": 0.5, "floor": 0.1, "kind": "assumed", "measured_bound": 2.0},
    ],
    ids=str,
)
def test_contradictory_significances_are_refused(fields):
    with pytest.raises(ValueError, match="got"):
        Significance(**fields)


@pytest.mark.parametrize(
    ("alpha", "kind", "m"),
    [
        (0.01, "path", 99),
        (0.01, "portfolio", 111),
        (0.01, "e-process", 199),
        (0.05, "path", 19),
        (0.05, "portfolio", 22),
        (0.05, "e-process", 39),
        (0.001, "path", 999),
    ],
)
def test_how_many_calibrators_a_level_needs(alpha, kind, m):
    assert calibrators_needed(alpha, kind) == m


@given(st.decimals("0.001", "0.5", places=3))
def test_the_needed_calibrators_reach_the_level_and_one_less_does_not(alpha):
    m = calibrators_needed(float(alpha))
    assert rank_p(1.0, np.zeros(m)).p <= float(alpha) < rank_p(1.0, np.zeros(m - 1)).p if m > 1 else True


@given(st.decimals("0.001", "0.999", places=3), nulls, scores)
def test_the_critical_rank_says_what_decides(alpha, null, seen):
    exceeding = (rounded(null, null) >= rounded(seen, null)).sum()
    assert (rank_p(seen, null).p <= float(alpha)) == (exceeding < critical_rank(float(alpha), len(null)))


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 5, math.nan])
def test_levels_outside_the_unit_interval_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        calibrators_needed(alpha)


@pytest.mark.parametrize(("alpha", "m", "k"), [(0.29, 99, 29), (0.57, 99, 57), (0.01, 98, 0), (0.05, 0, 0)])
def test_the_critical_rank_takes_a_level_as_it_is_written(alpha, m, k):
    assert critical_rank(alpha, m) == k


def test_an_unknown_kind_of_test_is_refused():
    with pytest.raises(ValueError, match="portfolio"):
        calibrators_needed(0.01, "monitor")


@pytest.mark.parametrize(("alpha", "bound"), [(0.01, 12), (0.05, 32), (0.005, 0)])
def test_false_alarms_a_valid_test_may_show_among_300(alpha, bound):
    assert type_one_bound(300, 99, alpha) == bound


@pytest.mark.parametrize(
    ("sizes", "alpha"), [([(60, 99)] * 2, 0.01), ([(2, 99)] * 5, 0.01), ([(300, 99), (30, 199)], 0.05)]
)
def test_false_alarms_of_several_studies_stay_within_their_common_bound_as_often_as_promised(sizes, alpha):
    rng = np.random.default_rng(0)
    ranks = [(trials, m, critical_rank(alpha, m)) for trials, m in sizes]
    alarms = sum(rng.binomial(trials, rng.beta(k, m + 1 - k, 200_000)) for trials, m, k in ranks)
    bound = type_one_bound_over(sizes, alpha)
    assert np.mean(alarms <= bound) >= 0.975 - 0.002
    assert np.mean(alarms <= bound - 1) < 0.975 + 0.002


def test_the_common_bound_of_one_study_is_its_own_and_a_null_that_cannot_reject_allows_nothing():
    assert type_one_bound_over([(300, 99)], 0.05) == type_one_bound(300, 99, 0.05)
    assert type_one_bound_over([(300, 98)] * 3, 0.01) == type_one_bound_over([], 0.01) == 0
    with pytest.raises(ValueError, match="trials"):
        type_one_bound_over([(3, 99), (-1, 99)], 0.01)


def test_the_full_p_of_a_label_e_process():
    found = e_process_p(evidence=200.0, m=199)
    assert found.p == found.full_error == 0.01
    assert found.floor == 0.005
    assert e_process_p(math.inf, m=6).p == pytest.approx(1 / 7)
    assert e_process_p(0.5, m=6).p == 1.0


def test_exact_binomial_known_answers():
    certain = exact_binomial(10, 10, 0.1)
    assert certain.p == pytest.approx(1e-10) and certain.p >= certain.floor == pytest.approx(1e-10)
    assert exact_binomial(0, 10, 0.1).p == 1.0
    assert exact_binomial(0, 0, 0.1).p == 1.0
    assert exact_binomial(2, 3, 0.5).p == pytest.approx(0.5)


def test_a_vanishing_p_is_never_zero():
    assert 0 < exact_binomial(5000, 5000, 0.1).p < 1e-300
    assert 0 < fixed_points_p(1000) < 1e-300


@pytest.mark.parametrize(("hits", "n", "rate"), [(4, 3, 0.1), (-1, 3, 0.1), (1, 3, 0.0), (1, 3, 1.0)])
def test_impossible_draws_are_refused(hits, n, rate):
    with pytest.raises(ValueError, match="got"):
        exact_binomial(hits, n, rate)


def test_fixed_points_bound_the_chance_in_every_group_layout():
    """Eight units in order: 1/8!, where the usual Spearman routine returns 0."""
    from scipy.stats import spearmanr

    assert spearmanr(range(8), range(8)).pvalue == 0
    assert fixed_points_p(8) == pytest.approx(1 / math.factorial(8))
    assert fixed_points_p(0) == 1.0
    assert fixed_points_p(5, groups=2) == pytest.approx(2**5 / 120)


@pytest.mark.parametrize("sizes", [(5,), (3, 3), (2, 2, 3)])
def test_the_fixed_point_bound_holds_by_enumeration(sizes):
    from itertools import permutations

    counts = np.zeros(1)
    counts[0] = 1.0
    for size in sizes:  # distribution of the total over independent groups
        fixed = [sum(i == j for i, j in enumerate(order)) for order in permutations(range(size))]
        counts = np.convolve(counts, np.bincount(fixed, minlength=size + 1) / len(fixed))
    tails = counts[::-1].cumsum()[::-1]
    bounds = [fixed_points_p(k, len(sizes)) for k in range(len(tails))]
    assert (tails <= np.array(bounds) + 1e-12).all()


def test_an_extrapolated_tail_is_wider_than_the_binomial_where_models_differ():
    spread, alike = [12, 30, 17, 26, 9, 33, 20, 28], [22, 21, 23, 22, 22, 21, 23, 22]
    wide, narrow = (extrapolated_beta_binomial(32, 51, null).p for null in (spread, alike))
    pooled = exact_binomial(32, 51, (sum(alike) + 0.5) / (8 * 51 + 1)).p
    assert narrow == pytest.approx(pooled, rel=1e-3)
    assert wide > 10 * narrow


def test_an_extrapolated_tail_goes_below_the_rank_floor_and_does_not_decide():
    shown = extrapolated_beta_binomial(51, 51, [20, 25, 17, 23, 28, 19])
    assert shown.floor == shown.p < 1 / 7 and not shown.decides and shown.e_value is None


@pytest.mark.parametrize("null", [[3], [3, 60], [[3, 4]], [-1, 3]])
def test_null_counts_that_are_none_are_refused(null):
    with pytest.raises(ValueError, match="nulls"):
        extrapolated_beta_binomial(3, 51, null)


def test_redrawn_nulls_within_one_pool_keep_the_level_and_too_few_raise_no_alarm():
    rng = np.random.default_rng(5)
    pool = rng.beta(3, 4, 400)
    assert redrawn_rate(pool, 99, 0.05, 300, rng) == pytest.approx(0.05, abs=0.005)
    assert redrawn_rate(pool, 99, 0.005, 300, rng) == 0.0
    assert redrawn_rate(np.zeros(400), 99, 0.05, 300, rng) == 0.0
    assert redrawn_rate(np.zeros(400), 99, 0.05, 300, rng, tested=np.zeros(5)) == 0.0


def test_redrawn_nulls_find_innocents_of_a_harder_rung():
    rng = np.random.default_rng(6)
    pool, siblings = rng.normal(size=400), rng.normal(1.0, size=300)
    assert redrawn_rate(pool, 99, 0.05, 300, rng, tested=siblings) > 0.1
    assert redrawn_rate(pool, 99, 0.05, 300, rng, tested=pool) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize(("pool", "redraws"), [(np.zeros(99), 10), (np.zeros(200), 0), (np.zeros((20, 10)), 10)])
def test_a_pool_that_leaves_nobody_to_test_is_refused(pool, redraws):
    with pytest.raises(ValueError, match="redraws"):
        redrawn_rate(pool, 99, 0.05, redraws, np.random.default_rng(0))
