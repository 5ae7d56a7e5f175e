"""Figures of ranking: how well scores tell copies from innocents. They rank methods; they are no evidence."""

import numpy as np
from numpy.typing import ArrayLike


def auc(copies: ArrayLike, innocents: ArrayLike) -> float | None:
    """Return the chance that a copy scores above an innocent, ties half; None where one side is empty.

    >>> auc([0.9, 0.5], [0.5, 0.1])
    0.875
    """
    a, b = np.asarray(copies, dtype=float), np.asarray(innocents, dtype=float)
    if not a.size or not b.size:
        return None
    above = (a[:, None] > b[None]).mean() + (a[:, None] == b[None]).mean() / 2
    return float(above)


def aruc(copies: ArrayLike, innocents: ArrayLike, steps: int = 1000) -> float | None:
    """Return the area under min(R, U) over thresholds in [0, 1]: robustness and uniqueness at once.

    R(t) is the share of copies with a score of at least t, U(t) that of innocents below t. None where one side is empty
    or a score leaves [0, 1]: the thresholds then have no common unit.

    >>> aruc([1.0, 1.0], [0.0, 0.0]), aruc([0.5], [0.5])
    (1.0, 0.0)

    References: X. Cao, J. Jia, N. Z. Gong, IPGuard, AsiaCCS 2021, arXiv 1910.12903 (the area over thresholds).
    """
    a, b = np.sort(np.asarray(copies, dtype=float)), np.sort(np.asarray(innocents, dtype=float))
    if not a.size or not b.size or min(a[0], b[0]) < 0 or max(a[-1], b[-1]) > 1:
        return None
    middles = (np.arange(steps) + 0.5) / steps
    robust = 1 - np.searchsorted(a, middles) / a.size
    unique = np.searchsorted(b, middles) / b.size
    return float(np.minimum(robust, unique).mean())
