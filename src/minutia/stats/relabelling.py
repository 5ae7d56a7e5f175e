"""Answers in other names: how alike two labellings are under the best renaming of classes."""

import numpy as np
from numpy.typing import ArrayLike


def best_relabelling(own: ArrayLike, seen: ArrayLike) -> float:
    """Return the share of equal labels after the one-to-one renaming of `seen` that makes it largest.

    See `relabelling`.

    >>> best_relabelling([0, 1, 2, 2], [1, 2, 0, 0])
    1.0
    """
    return relabelling(own, seen)[1]


def relabelling(own: ArrayLike, seen: ArrayLike) -> tuple[dict[int, int], float]:
    """Return the one-to-one renaming of `seen` that makes most labels equal, and the share that then are.

    Both have shape (n,), n >= 1, integers from 0. The result is never below the plain share of equal labels.
    Raises ValueError for other shapes or negative labels.

    >>> relabelling([0, 1, 2, 2], [1, 2, 0, 0])
    ({1: 0, 2: 1, 0: 2}, 1.0)

    References: H. W. Kuhn, Naval Research Logistics Quarterly 2, 1955 (the assignment problem).
    """
    from scipy.optimize import linear_sum_assignment

    first, second = np.asarray(own), np.asarray(seen)
    if first.ndim != 1 or first.shape != second.shape or not len(first) or min(first.min(), second.min()) < 0:
        raise ValueError(
            f"expected two equally long rows of labels from 0, got shapes {first.shape} and {second.shape}"
        )
    mine, first = np.unique(first, return_inverse=True)
    theirs, second = np.unique(second, return_inverse=True)
    counts = np.zeros((len(mine), len(theirs)), dtype=np.int64)
    np.add.at(counts, (first, second), 1)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    names = {int(theirs[c]): int(mine[r]) for r, c in zip(rows, columns, strict=True)}
    return names, float(counts[rows, columns].sum() / len(first))
