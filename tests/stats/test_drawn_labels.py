"""Exact tests against labels drawn at random: known answers, every case counted by hand, error rates."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minutia.stats.drawn_labels import SMALLEST, early_looks, redrawn_tails
from minutia.stats.nulls import exact_binomial


def hits(found, n, classes=10):
    """Tail of so many hits among n labels of so many classes."""
    seen = np.zeros(n, int)
    seen[:found] = 1
    return float(redrawn_tails(np.tile([1 - 1 / classes, 1 / classes], (n, 1)), seen, [n])[0])


@pytest.mark.parametrize(("found", "p"), [(20, 2.0e-3), (30, 2.4e-8)])
def test_hits_among_a_hundred_labels_of_ten_classes(found, p):
    assert hits(found, 100) == pytest.approx(p, rel=0.02)


@pytest.mark.parametrize(("found", "n", "classes"), [(0, 10, 2), (7, 10, 2), (20, 100, 10), (95, 100, 10), (6, 6, 3)])
def test_hits_alone_are_binomial(found, n, classes):
    assert hits(found, n, classes) == pytest.approx(exact_binomial(found, n, 1 / classes).p, rel=1e-9)


@st.composite
def worths(draw):
    """What each label of up to five questions would be worth, and which labels were drawn."""
    classes, n = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 6), min_size=classes, max_size=classes)
    return np.array(draw(st.lists(row, min_size=n, max_size=n))), draw(
        st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)
    )


@given(worths())
def test_the_tail_is_the_share_of_all_labellings_that_do_as_well(case):
    table, drawn = case
    n, classes = table.shape
    chances = np.stack([np.bincount(row, minlength=7) / classes for row in table])
    seen = table[np.arange(n), drawn]
    sums = [sum(table[i, label] for i, label in enumerate(some)) for some in product(range(classes), repeat=n)]
    assert redrawn_tails(chances, seen, [n])[0] == pytest.approx(np.mean(np.array(sums) >= seen.sum()))


def test_a_tail_too_small_for_a_float_is_no_zero():
    assert hits(400, 400) == SMALLEST


@pytest.mark.parametrize(
    ("chances", "seen", "sizes"),
    [
        ([[0.5, 0.5]], [1, 1], [1]),
        ([[0.5, 0.6]], [1], [1]),
        ([[0.5, 0.5]], [2], [1]),
        ([[0.5, 0.5]], [-1], [1]),
        ([[0.5, 0.5]], [1], [2]),
        ([0.5, 0.5], [1], [1]),
    ],
)
def test_what_is_no_distribution_is_refused(chances, seen, sizes):
    with pytest.raises(ValueError, match="expected"):
        redrawn_tails(chances, seen, sizes)


def test_one_look_is_the_plain_test():
    assert early_looks([0.0123], [1e-9]).p == 0.0123


def test_the_last_of_many_looks_costs_a_ninth():
    tails = [1.0] * 11 + [hits(20, 100)]
    assert early_looks(tails, [1e-9] * 12).p == pytest.approx(hits(20, 100) / 0.9)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8))
def test_p_only_falls_with_more_looks(tails):
    least = [1e-7] * 8
    ps = [early_looks(tails[:k], least).p for k in range(1, len(tails) + 1)]
    assert ps == sorted(ps, reverse=True)
    assert all(early_looks(tails[:k], least).floor <= p for k, p in enumerate(ps, 1))


@pytest.mark.parametrize(("tails", "least"), [([], [0.1]), ([0.1, 0.2], [0.1]), ([0.0], [0.1]), ([1.1], [0.1])])
def test_looks_that_cannot_be_are_refused(tails, least):
    with pytest.raises(ValueError, match="expected"):
        early_looks(tails, least)
