"""Exact tests against labels that the owner drew at random, looked at early.

The randomness is the owner's: whatever the suspect is and answers, labels drawn without it are independent of it and
of one another. So its answers stay as they are, the labels are redrawn in thought, and p needs no other model.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from minutia.stats.evalues import p_to_e
from minutia.stats.nulls import Floats, Significance

SMALLEST = 1e-300
"""Stands for tails too small for a float: 0 would claim too much."""
LAST_LOOK = 0.9
"""Share of the error that the last look gets; the looks before it share the rest evenly."""


def redrawn_tails(chances: ArrayLike, seen: ArrayLike, sizes: Sequence[int]) -> Floats:
    """Return P(X_1 + … + X_k >= the seen sum of the first k) for each k in `sizes`, for independent X_i.

    H0: the suspect was made without knowledge of the labels, so that X_i, what a freshly drawn label of question i
    would be worth, has the distribution `chances[i]`. `chances` has shape (n, w): the probabilities of the values
    0, …, w - 1, each row summing to 1; `seen` (n,) are the values of the labels that were drawn. The distribution of
    the sum is convolved question by question: exact for any n, without simulation, and a sum of positive numbers, so
    that small tails are as precise as large ones. Returned as at least 1e-300.
    Raises ValueError for other shapes, values outside 0..w-1, or sizes outside 0..n.

    >>> redrawn_tails([[0.5, 0.5]] * 3, [1, 1, 0], [2, 3]).tolist()
    [0.25, 0.5]

    References: E. S. Edgington, Randomization Tests, Marcel Dekker 1980 (the principle); the convolution is ours.
    """
    rows, values = np.asarray(chances, dtype=float), np.asarray(seen, dtype=np.int64)
    if rows.ndim != 2 or values.shape != rows.shape[:1] or any(not 0 <= k <= len(rows) for k in sizes):
        raise ValueError(f"expected chances (n, w), values (n,) and sizes up to n, got {rows.shape}, {values.shape}")
    if len(rows) and (not 0 <= values.min() <= values.max() < rows.shape[1] or np.abs(rows.sum(1) - 1).max() > 1e-9):
        raise ValueError(f"expected rows of chances that sum to 1 and values below {rows.shape[1]}, got others")
    tails, sums, reached = dict[int, float](), np.ones(1), np.concatenate([[0], np.cumsum(values)])
    for k in range(max(sizes, default=0) + 1):
        tails[k] = min(1.0, max(float(sums[reached[k] :].sum()), SMALLEST))
        if k < len(rows):
            sums = np.convolve(sums, rows[k])
    return np.array([tails[k] for k in sizes])


def early_looks(tails: ArrayLike, least: ArrayLike) -> Significance:
    """Return the p-value of tails (l,) at the first l looks of a schedule of L, l <= L.

    H0: as in `redrawn_tails`. p = min over the looks so far of tail / share, where the last of the L looks has nine
    tenths of the error and those before it share one tenth evenly: P(p <= alpha) <= alpha whenever somebody stops, by
    the union bound, and the last look costs a ninth more than a plain test. It uses no answers that were not asked
    yet, so it only falls as looks are added. One look alone is the plain test. `least` (L,) are the smallest tails
    that each look could give, for the floor. Raises ValueError for no look, more looks than the schedule has, or tails
    outside (0, 1].

    >>> early_looks([0.004, 0.002], [0.001, 1e-9]).p, early_looks([0.01], [0.001]).p
    (0.0022222222222222222, 0.01)
    """
    found, smallest = np.asarray(tails, dtype=float), np.asarray(least, dtype=float)
    if not 1 <= len(found) <= len(smallest):
        raise ValueError(f"expected 1 to {len(smallest)} looks, got {len(found)}")
    if not (found > 0).all() or not (found <= 1).all() or not (smallest > 0).all():
        raise ValueError(f"expected tails in (0, 1], got {found}: they are probabilities")
    shares = np.full(len(smallest), (1 - LAST_LOOK) / max(1, len(smallest) - 1))
    shares[-1] = LAST_LOOK if len(smallest) > 1 else 1.0
    floor = min(1.0, float((smallest / shares).min()))
    p = min(1.0, max(float((found / shares[: len(found)]).min()), floor))
    return Significance(p, floor, "exact", e_value=p_to_e(p))
