"""The path test: looking early without paying for it.

One pre-ordered list of queries, evaluated at looks n_1 < ... < n_L. The suspect's path of standardised
scores is ranked by its maximum so far among the null models' maxima over their *full* paths, so the error
is at most alpha for any number of looks, and the p-value only falls: stopping early is safe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from minutia.stats.nulls import Floats, Significance, critical_rank, rank_p, rounded


@dataclass(frozen=True, eq=False)
class Standardiser:
    """The transform that makes looks (and columns) comparable, fixed before anybody looks.

    mean, sd: the scores of *spent* models, shape (L,) per look or (K, L) per column and look. Spent models
    never calibrate, so the transform treats suspect and nulls alike; a mean of the nulls themselves would
    not (false alarms .075 at .05). Raises ValueError for shapes that differ or an sd that is not
    positive.

    >>> Standardiser(mean=[0.5, 0.5], sd=[0.2, 0.1]).transform([0.7, 0.6]).round(6).tolist()
    [1.0, 1.0]
    """

    mean: Floats
    sd: Floats

    def __post_init__(self) -> None:
        mean, sd = np.array(self.mean, dtype=float), np.array(self.sd, dtype=float)
        if mean.shape != sd.shape or not np.isfinite(mean).all() or not (np.isfinite(sd) & (sd > 0)).all():
            raise ValueError(f"expected finite means and positive sds of one shape, got {mean} and {sd}: use fit")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "sd", sd)

    @classmethod
    def fit(cls, spent: ArrayLike, asked: ArrayLike | None = None, floor: float = 1e-3) -> Self:
        """Return the standardiser of spent models' scores, shape (s, L) or (s, K, L), s >= 2.

        The variance has a floor, because a few spent models that happen to agree would make the first
        innocent who differs look extreme. For match rates over `asked` points, shape (L,), it is the
        binomial variance q(1-q)/asked with q = (sum + .5)/(s + 1) over the spent models; else the sd is at
        least `floor` times that of all looks of the column. Columns (K,) without looks are fitted one by one,
        each as (s, 1), and stacked: they may be of different units.
        Raises ValueError for fewer than 2 models, NaN, or `asked` below 1.

        >>> Standardiser.fit([[0.0, 0.1], [0.0, 0.3]], asked=[10, 40]).sd.round(3).tolist()
        [0.118, 0.141]
        """
        scores = np.asarray(spent, dtype=float)
        if scores.ndim < 2 or len(scores) < 2 or not np.isfinite(scores).all():
            raise ValueError(f"expected finite scores (s, L) of s >= 2 spent models, got shape {scores.shape}")
        least = _relative_variance(scores, floor) if asked is None else _binomial_variance(scores, asked)
        return cls(scores.mean(axis=0), np.sqrt(np.maximum(scores.var(axis=0, ddof=1), least)))

    @classmethod
    def stack(cls, columns: Sequence["Standardiser"]) -> Self:
        """Return the standardiser (K, ...) of K columns that share their looks, each fitted on its own."""
        return cls(np.stack([c.mean for c in columns]), np.stack([c.sd for c in columns]))

    def transform(self, scores: ArrayLike) -> Floats:
        """Return the standardised scores of the first l <= L looks, shape (..., l)."""
        values = np.asarray(scores, dtype=float)
        looks = values.shape[-1] if values.ndim else 0
        if not 1 <= looks <= self.mean.shape[-1]:
            raise ValueError(f"expected 1 to {self.mean.shape[-1]} looks, got shape {values.shape}")
        return np.asarray((values - self.mean[..., :looks]) / self.sd[..., :looks])


def _binomial_variance(scores: Floats, asked: ArrayLike) -> Floats:
    counts = np.asarray(asked, dtype=float)
    if not (counts >= 1).all() or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError(f"expected match rates in [0, 1] over 1 or more points, got points {counts}: leave asked out")
    # The model is the sampling unit, so half a model that matches and half one that does not are added.
    rate = (scores.sum(axis=0) + 0.5) / (len(scores) + 1)
    return np.asarray(rate * (1 - rate) / counts)


def _relative_variance(scores: Floats, floor: float) -> Floats:
    if not floor > 0:
        raise ValueError(f"floor must be positive, got {floor}: spent models that agree leave no scale of their own")
    # Scores that are all alike vary by float noise only, which is no scale; all zero, any scale will do.
    spread, size = (f(axis=(0, -1), keepdims=True)[0] for f in (scores.std, np.abs(scores).max))
    scale = np.maximum(spread, 1e-9 * size)
    return np.asarray((floor * np.where(scale > 0, scale, 1.0)) ** 2)


def running_max(path: ArrayLike) -> Floats:
    """Return the largest score so far at each look, shape (..., L).

    >>> running_max([0.1, 2.0, 1.5]).tolist()
    [0.1, 2.0, 2.0]
    """
    return np.maximum.accumulate(np.asarray(path, dtype=float), axis=-1)


def path_p(seen: ArrayLike, null: ArrayLike) -> Significance:
    """Return the p-value of a suspect's path so far, its maximum ranked among the nulls' full path maxima.

    H0: the suspect is one more innocent, exchangeable with the null models, all asked the same queries in
    one order.
    `seen` holds the standardised scores of the looks so far, shape (l,), 1 <= l <= L; `null` those of m
    null models at all looks, shape (m, L). The p-value only falls as looks are added. Raises ValueError for
    other shapes or NaN.

    >>> null = [[0.1, 0.4], [1.9, 0.2], [0.3, -1.0]]
    >>> path_p([1.0], null).p, path_p([1.0, 2.5], null).p
    (0.5, 0.25)

    References: C. Jennison and B. W. Turnbull, Group Sequential Methods, Chapman and Hall 1999 (the looks).
    """
    suspect, nulls = np.asarray(seen, dtype=float), _paths(null)
    if suspect.ndim != 1 or not len(suspect) or (len(nulls) and len(suspect) > nulls.shape[1]):
        raise ValueError(f"expected 1 to {nulls.shape[1]} looks of one suspect, got shape {suspect.shape}")
    return rank_p(suspect.max(), nulls.max(axis=1))


def path_threshold(null: ArrayLike, alpha: float) -> float:
    """Return what a suspect's running maximum must exceed at any look for p <= alpha.

    The floor(alpha (m+1))-th largest null path maximum, rounded as scores are before ranking; infinite
    where m null paths cannot decide at alpha. `null` has shape (m, L). Raises ValueError for other shapes,
    NaN, or a bad alpha.

    >>> path_threshold([[0.1, 0.4], [1.9, 0.2], [0.3, -1.0]], alpha=0.5)
    0.4
    >>> path_threshold([[0.1, 0.4], [1.9, 0.2], [0.3, -1.0]], alpha=0.05)
    inf
    """
    maxima = _paths(null).max(axis=1)
    k = critical_rank(alpha, len(maxima))
    return float(np.sort(rounded(maxima, maxima))[-k]) if k else np.inf


def _paths(null: ArrayLike) -> Floats:
    paths = np.asarray(null, dtype=float)
    if not paths.size:  # no null model, whose number of looks nobody knows
        return paths.reshape(0, 1)
    if paths.ndim != 2:
        raise ValueError(f"expected null paths of shape (m, L), got {paths.shape}: one path per null model, all looks")
    return paths
