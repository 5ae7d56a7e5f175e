"""Matching units of two networks: who corresponds to whom, and how often two matchings agree."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minutia.stats.nulls import Floats


def matched(similarity: ArrayLike, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return for each row the column it is assigned to, maximising the sum of similarities; -1 for no column.

    Rows and columns are shuffled before and put back after: equal rows (dead units) would otherwise be assigned in
    the order of their numbers, and two unrelated networks would seem to keep each other's order. `similarity` has shape
    (a, b), a and b need not be equal. Raises ValueError for another shape or NaN.

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


def cosines(first: ArrayLike, second: ArrayLike) -> Floats:
    """Return the cosine of every row of one matrix (a, d) with every row of another (b, d); zero rows give 0.

    >>> cosines([[1.0, 0.0], [0.0, 0.0]], [[2.0, 0.0]]).tolist()
    [[1.0], [0.0]]
    """
    sides = []
    for rows in (np.asarray(first, dtype=float), np.asarray(second, dtype=float)):
        size = np.linalg.norm(rows, axis=1, keepdims=True)
        sides.append(rows / np.where(size > 0, size, 1.0))
    return np.asarray(sides[0] @ sides[1].T)


def balanced(table: ArrayLike, rounds: int = 30) -> Floats:
    """Return a table (a, b, c) whose slices along its first two axes have norm 1: its form up to positive scales.

    Multiplying any slice of either axis by a positive number does not change the result; zero slices stay zero.

    >>> one = balanced([[[1.0], [2.0]], [[3.0], [4.0]]])
    >>> np.allclose(one, balanced([[[10.0], [2.0]], [[30.0], [4.0]]]))
    True

    References: R. Sinkhorn and P. Knopp, Pacific Journal of Mathematics 21, 1967 (alternating normalisation).
    """
    found = np.array(table, dtype=float)
    for _ in range(rounds):
        for axes in ((1, 2), (0, 2)):
            size = np.sqrt((found**2).mean(axis=axes, keepdims=True))
            found = found / np.where(size > 0, size, 1.0)
    return found
