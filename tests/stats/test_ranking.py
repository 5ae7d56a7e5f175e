"""Ranking figures and evidence per query, against definitions written out the slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.stats.evidence import bits_per_query
from minutia.stats.ranking import aruc, auc

scores = st.lists(st.floats(0, 1).map(lambda x: round(x, 3)), min_size=1, max_size=12)
rates = st.floats(0, 1)


@given(scores, scores)
def test_auc_counts_pairs(copies, innocents):
    pairs = [(a > b) + (a == b) / 2 for a in copies for b in innocents]
    assert auc(copies, innocents) == pytest.approx(np.mean(pairs))
    assert auc(copies, innocents) == pytest.approx(1 - auc(innocents, copies))


@given(scores, scores)
def test_aruc_is_the_area_under_the_smaller_of_two_curves(copies, innocents):
    ts = (np.arange(1000) + 0.5) / 1000
    slow = np.mean([min(np.mean(np.array(copies) >= t), np.mean(np.array(innocents) < t)) for t in ts])
    assert aruc(copies, innocents) == pytest.approx(slow)


def test_ranking_without_one_side_or_a_common_unit_is_not_measured():
    assert auc([], [0.1]) is None and auc([0.1], []) is None
    assert aruc([], [0.1]) is None and aruc([1.5], [0.1]) is None and aruc([0.5], [-0.1]) is None


@given(rates, rates, st.integers(1, 500))
def test_evidence_is_never_negative_and_zero_where_an_innocent_does_as_well(rate, null, asked):
    bits = bits_per_query(rate, null, asked)
    assert bits >= 0 and np.isfinite(bits)
    if rate <= null:
        assert bits == 0


@given(st.floats(0.5, 1), st.floats(0, 0.4))
def test_evidence_grows_with_the_copy_and_falls_with_the_innocents(rate, null):
    assert bits_per_query(rate, null, 100) >= bits_per_query(0.5, null, 100) - 1e-12
    assert bits_per_query(rate, null, 100) <= bits_per_query(rate, 0.0, 100) + 1e-12


@pytest.mark.parametrize("wrong", [(1.1, 0, 5), (0.5, -0.1, 5), (0.5, 0.1, 0)])
def test_evidence_of_what_is_no_rate_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        bits_per_query(*wrong)
