"""Matching the units of two networks, and what an order, or an agreement of two matchings, is worth."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minutia.stats.nulls import Floats, fixed_points_p

Order = NDArray[np.int64]
"""For each unit of one network the place (n,) of its partner in the other; -1 for none."""


def cosines(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return the cosine of every row of one matrix (a, d) with every row of another (b, d); rows of zeros give 0.

    >>> cosines([[1.0, 0.0], [0.0, 0.0]], [[2.0, 0.0]]).tolist()
    [[1.0], [0.0]]
    """
    sides = []
    for rows in (np.asarray(first, dtype=float), np.asarray(second, dtype=float)):
        size = np.linalg.norm(rows, axis=1, keepdims=True)
        sides.append(rows / np.where(size > 0, size, 1.0))
    return np.asarray(sides[0] @ sides[1].T)


def matched(similarity: ArrayLike, rng: np.random.Generator) -> Order:
    """Return for each row the column it is assigned to, maximising the sum of similarities; -1 for no column.

    Rows and columns are shuffled before and put back after: equal rows (dead units) would otherwise be assigned in
    the order of their numbers, and two unrelated networks would seem to keep each other's order. `similarity` has
    shape (a, b); a and b need not be equal. Raises ValueError for another shape or NaN.

    >>> matched([[0.1, 0.9], [0.8, 0.2]], np.random.default_rng(0)).tolist()
    [1, 0]

    References: H. W. Kuhn, Naval Research Logistics Quarterly 2, 1955 (the assignment problem).
    """
    from scipy.optimize import linear_sum_assignment

    table = np.asarray(similarity, dtype=float)
    if table.ndim != 2 or np.isnan(table).any():
        raise ValueError(f"expected similarities (a, b) without NaN, got shape {table.shape}: drop dead units first")
    first, second = rng.permutation(table.shape[0]), rng.permutation(table.shape[1])
    rows, columns = linear_sum_assignment(table[np.ix_(first, second)], maximize=True)
    found = np.full(table.shape[0], -1, dtype=np.int64)
    found[first[rows]] = second[columns]
    return found


def order_p(groups: Sequence[tuple[Order, int]], rng: np.random.Generator, draws: int = 9999) -> float:
    """Return the exact p-value of matchings, one per group of units: how far partners stand in each other's place.

    H0: in every group the other network's units stand in uniformly random order, independently of the other groups.
    Each group is an order (n,) with the number of units in the other network. Where both have n units, p is the bound
    G^k / k! for k units in their own place in G groups. Where they differ, removed units have moved the others, and
    the sum of the rank correlations of partners' places, times sqrt(pairs - 1), is compared with `draws` random
    orders. With groups of both sorts the smaller p counts twice. No pair of units at all is worth 1.

    >>> order_p([(np.arange(8), 8)], np.random.default_rng(0)) == fixed_points_p(8)
    True
    >>> order_p([(np.array([0, 2, 3, 5, 6, 7, 9, 10, -1]), 11)], np.random.default_rng(0)) < 0.01
    True

    References: S. Zhu, A. Ahmed, R. Kuditipudi and P. Liang, Independence Tests for Language Models, ICML 2025 (the
    order of hidden units); B. Phipson and G. Smyth, Stat. Appl. Genet. Mol. Biol. 9(1), 2010 (the +1).
    """
    equal = [order for order, other in groups if len(order) == other and (order >= 0).any()]
    moved = [order[order >= 0] for order, other in groups if len(order) != other and np.sum(order >= 0) > 1]
    ps = []
    if equal:
        ps.append(fixed_points_p(sum(int(np.sum(order == np.arange(len(order)))) for order in equal), len(equal)))
    if moved:
        ps.append(_correlated_p([_ranks(order) for order in moved], rng, draws))
    return min(1.0, len(ps) * min(ps)) if ps else 1.0


def _ranks(values: Order) -> Floats:
    """Ranks from -1 to 1, scaled so that the sum of products of two orders is their correlation."""
    ranks = np.argsort(np.argsort(values)) - (len(values) - 1) / 2
    return np.asarray(ranks / np.linalg.norm(ranks))


def _correlated_p(orders: Sequence[Floats], rng: np.random.Generator, draws: int) -> float:
    seen, drawn = 0.0, np.zeros(draws)
    for order in orders:
        straight, weight = np.sort(order), np.sqrt(len(order) - 1)
        seen += weight * float(order @ straight)
        drawn += weight * (rng.permuted(np.tile(order, (draws, 1)), axis=1) @ straight)
    return float(1 + np.sum(drawn >= seen - 1e-9)) / (1 + draws)


def share_p(agreed: int, units: int, allowance: float) -> float:
    """Return P(Binomial(units, allowance) >= agreed): agreement of two matchings, beyond what independence allows.

    H0: a unit's two matchings agree with probability at most `allowance`. Independent networks learn partly the same
    features, so their units agree more often than by chance; the allowance is what was measured among them, and an
    assumption elsewhere. Raises ValueError for counts that are none.

    >>> share_p(10, 10, 0.5), share_p(0, 0, 0.5)
    (0.0009765625, 1.0)
    """
    from scipy.stats import binom

    if not 0 <= agreed <= units or not 0 < allowance < 1:
        raise ValueError(
            f"expected 0 <= agreed <= units and an allowance in (0, 1), got {agreed}, {units}, {allowance}"
        )
    return float(binom.sf(agreed - 1, units, allowance))
