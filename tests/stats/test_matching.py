"""Matching, and what an order or an agreement is worth: known answers, laws, error rates."""

from math import comb, factorial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.stats.matching import cosines, matched, order_p, share_p


def rng(seed=0):
    return np.random.default_rng(seed)


def test_cosines_by_hand():
    assert cosines([[3.0, 4.0]], [[4.0, 3.0], [-3.0, -4.0], [0.0, 0.0]]) == pytest.approx(np.array([[0.96, -1.0, 0.0]]))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_matching_gives_every_row_another_column(a, b, seed):
    found = matched(rng(seed).normal(size=(a, b)), rng(seed))
    used = found[found >= 0]
    assert len(used) == min(a, b) == len(set(used)) and found.max() < b


@given(st.integers(2, 12), st.integers(0, 99))
def test_matching_undoes_an_order(count, seed):
    rows, order = rng(seed).normal(size=(count, 30)), rng(seed + 1).permutation(count)
    found = matched(cosines(rows, rows[order]), rng())
    assert np.array_equal(order[found], np.arange(count))


def test_equal_rows_do_not_keep_their_places():
    """Of 16 equal rows about one keeps its place; in the order of their numbers all would."""
    kept = [np.sum(matched(np.ones((16, 16)), rng(seed)) == np.arange(16)) for seed in range(300)]
    assert 0.7 < np.mean(kept) < 1.3


@pytest.mark.parametrize("table", [[1.0], [[np.nan]]])
def test_what_is_no_table_is_refused(table):
    with pytest.raises(ValueError, match="without NaN"):
        matched(table, rng())


def test_an_order_kept_is_worth_the_bound_over_all_groups():
    groups = [(np.arange(8), 8), (np.arange(5), 5)]
    assert order_p(groups, rng()) == pytest.approx(2**13 / factorial(13))
    assert order_p([(np.arange(8), 8), (np.arange(5)[::-1], 5)], rng()) == pytest.approx(2**9 / factorial(9))


def test_units_without_a_partner_keep_no_place():
    assert order_p([(np.array([-1, 1, 2, -1]), 4)], rng()) == pytest.approx(0.5)


def test_nothing_to_compare_is_no_evidence():
    assert order_p([], rng()) == order_p([(np.array([-1, -1]), 2)], rng()) == order_p([(np.array([0]), 5)], rng()) == 1


def test_removed_units_are_seen_by_rank():
    shorter = np.array([0, -1, 1, 2, -1, 3, 4, 5, 6, 7])
    assert order_p([(shorter, 8)], rng(), draws=999) == 1 / 1000
    assert order_p([(shorter[::-1], 8)], rng(), draws=999) > 0.9


def test_both_kinds_of_groups_share_alpha():
    kept, shorter = np.arange(6), np.array([0, -1, 1, 2, 3, 4, 5, 6, 7])
    assert order_p([(kept, 6), (shorter, 8)], rng(), draws=9999) == pytest.approx(2 * 1 / 10_000)


@pytest.mark.parametrize("others", [(6, 8), (7, 10), (6, 10)], ids=["equal", "other widths", "both"])
def test_random_orders_are_rejected_as_rarely_as_the_level_says(others):
    """Each p-value is a rank or a bound, so at every level it is reached at most that often: 3,000 draws."""
    draw, ps = rng(5), []
    for _ in range(3000):
        groups = [(draw.permutation(n)[:m], n) for m, n in zip((6, 8), others, strict=True)]
        ps.append(order_p(groups, draw, draws=199))
    for level in (0.1, 0.05, 0.01):
        assert np.mean(np.array(ps) <= level) <= level + 3 * np.sqrt(level * (1 - level) / len(ps))


@given(st.integers(1, 30), st.data())
def test_the_share_is_a_binomial_tail(units, data):
    agreed = data.draw(st.integers(0, units))
    assert share_p(agreed, units, 0.5) == pytest.approx(
        sum(comb(units, k) for k in range(agreed, units + 1)) / 2**units
    )


@pytest.mark.parametrize("wrong", [(-1, 3, 0.5), (4, 3, 0.5), (1, 3, 0.0), (1, 3, 1.0)])
def test_impossible_counts_are_refused(wrong):
    with pytest.raises(ValueError, match="allowance"):
        share_p(*wrong)
