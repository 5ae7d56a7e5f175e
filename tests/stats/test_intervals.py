"""Known answers, and coverage by summing the binomial."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from minutia.stats import clopper_pearson, clustered, upper_bound_if_none


@pytest.mark.parametrize(("m", "bound"), [(27, 0.105), (60, 0.049), (300, 0.010), (0, 1.0)])
def test_what_no_false_alarm_among_m_is_worth(m, bound):
    assert upper_bound_if_none(m) == pytest.approx(bound, abs=5e-4)


def test_clopper_pearson_known_answers():
    assert clopper_pearson(10, 100) == pytest.approx((0.0490, 0.1762), abs=1e-4)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert clopper_pearson(27, 27).high == 1.0
    # One-sided 95 % is two-sided 90 %.
    assert clopper_pearson(0, 60, confidence=0.9).high == pytest.approx(upper_bound_if_none(60))


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.5])
def test_the_interval_covers_at_least_as_often_as_it_says(rate):
    covered = [k for k in range(41) if clopper_pearson(k, 40).low <= rate <= clopper_pearson(k, 40).high]
    assert binom.pmf(covered, 40, rate).sum() >= 0.95


@given(st.integers(1, 200), st.data())
def test_the_interval_holds_the_rate_and_mirrors(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = clopper_pearson(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert clopper_pearson(trials - successes, trials) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 95), (1, 2, 0)])
def test_counts_that_are_none_are_refused(successes, trials, confidence):
    with pytest.raises(ValueError, match="got"):
        clopper_pearson(successes, trials, confidence)


def test_clusters_that_are_alike_widen_the_interval_and_others_do_not():
    plain = clopper_pearson(15, 30)
    alike = clustered([0, 6, 3, 0, 6], [6] * 5)
    assert alike.low < plain.low and alike.high > plain.high
    even = clustered([3] * 5, [6] * 5)
    assert even == pytest.approx(plain)
    assert clustered([1, 0, 1], [1, 1, 1]) == clopper_pearson(2, 3)
    assert clustered([6, 6], [6, 6]) == clopper_pearson(12, 12) and clustered([], []) == clopper_pearson(0, 0)
    assert clustered([3, 0, 0], [6, 0, 6]) == clustered([3, 0], [6, 6])


def test_clusters_cover_the_truth_far_better_than_a_plain_interval():
    rng = np.random.default_rng(0)
    truths = rng.beta(0.5, 0.5, (2000, 8))
    hits = rng.binomial(6, truths)
    covered = [sum(low <= 0.5 <= high for low, high in ways) for ways in (
        [clustered(list(row), [6] * 8) for row in hits],
        [clopper_pearson(int(row.sum()), 48) for row in hits],
    )]  # fmt: skip
    assert covered[0] >= 0.9 * len(hits) > covered[1]
