"""Many scores or many p-values, one answer.

Never sum z-scores, weight by hand, or take a harmonic mean of p-values: none of them keeps its level.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minutia.stats.evalues import p_to_e
from minutia.stats.nulls import Floats, Significance, rank_p
from minutia.stats.sequential import Standardiser, path_p

# What a portfolio spends on its exact part; in the protocol hash, so that nobody picks it after looking.
_EXACT_SHARE = 0.1


def complete_columns(suspect: ArrayLike, null: ArrayLike) -> NDArray[np.bool_]:
    """Return which of K columns are measured for the suspect and for every null model, shape (K,).

    `suspect` has shape (K,) or (K, l), `null` (m, K) or (m, K, L); None and NaN mean not measured. Raises
    ValueError for shapes that do not fit.

    >>> complete_columns([1.0, None], [[0.2, 0.1], [0.3, 0.4]]).tolist()
    [True, False]
    """
    seen, nulls = np.asarray(suspect, dtype=float), np.asarray(null, dtype=float)
    if seen.ndim not in (1, 2) or nulls.ndim != seen.ndim + 1 or nulls.shape[1] != seen.shape[0]:
        raise ValueError(f"expected (K,) and (m, K), or (K, l) and (m, K, L), got {seen.shape}, {nulls.shape}")
    missing = [np.isnan(seen), np.isnan(nulls).any(axis=0)]
    if seen.ndim == 2:  # a column with a look missing is missing
        missing = [looks.any(axis=1) for looks in missing]
    return np.asarray(~(missing[0] | missing[1]))


def joint_maximum(
    suspect: ArrayLike, null: ArrayLike, standardiser: Standardiser | Sequence[Standardiser]
) -> Significance:
    """Return the joint rank test of K dependent scores: standardised, combined by their maximum, ranked.

    H0: the suspect is one more innocent, exchangeable with the null models. No correction for K is due,
    whatever the dependence. A maximum of ranks has an effective floor of K/(m+1), and z-scores by mean and
    deviation of the nulls err by .075 at .05: hence a standardiser of spent models, or one per column.
    `suspect` has shape (K,) or, with looks, (K, l), l <= L; `null` (m, K) or (m, K, L). Columns not
    measured for everyone are dropped for everyone (`complete_columns` names them); none left is no null.
    Raises ValueError for shapes that do not fit.

    >>> scale = Standardiser(mean=[0.0, 10.0], sd=[1.0, 5.0])
    >>> joint_maximum([0.2, 40.0], [[1.0, 12.0], [-0.5, 9.0], [2.0, 15.0]], scale).p
    0.25

    References: P. H. Westfall and S. S. Young, Resampling-Based Multiple Testing, Wiley 1993 (the joint
    maximum).
    """
    if not np.size(null):
        return Significance(None, None, "none")
    kept = complete_columns(suspect, null)
    if not kept.any():
        return Significance(None, None, "none")
    scale = standardiser if isinstance(standardiser, Standardiser) else Standardiser.stack(standardiser)
    if scale.mean.shape[0] != len(kept):
        raise ValueError(f"expected a standardiser of {len(kept)} columns, got {scale.mean.shape}")
    by_look = Standardiser(scale.mean.reshape(len(kept), -1), scale.sd.reshape(len(kept), -1))
    seen, nulls = (np.asarray(scores, dtype=float) for scores in (suspect, null))
    if seen.ndim == 1:  # one look
        seen, nulls = seen[:, None], nulls[:, :, None]
    return path_p(by_look.transform(seen)[kept].max(axis=0), by_look.transform(nulls)[:, kept].max(axis=1))


def combine_rank_exact(rank: Significance, exact: Significance) -> Significance:
    """Return the p-value of a portfolio's rank part and exact part: min(1, p_rank/.9, p_exact/.1).

    H0: both hypotheses hold. A part that was not measured (kind "none") gives nothing, and the split stays
    as it was fixed. An assumed part decides like an exact one if its Type-I error was measured; where it gives the
    smaller p, the whole is assumed. Raises ValueError where a part is of another kind, which may not decide.

    >>> both = combine_rank_exact(rank_p(2.0, [0.0] * 111), Significance(0.5, 1e-6, "exact"))
    >>> round(both.p, 5), round(both.floor, 7)
    (0.00992, 1e-05)
    """
    parts = ((rank, ("rank",), 1 - _EXACT_SHARE), (exact, ("exact", "assumed"), _EXACT_SHARE))
    for part, kinds, _ in parts:
        if part.kind != "none" and not (part.kind in kinds and part.decides):
            raise ValueError(f"expected a part of kind {kinds[0]!r} or 'none', got {part.kind!r}: it may not decide")
    ps = [part.p / share for part, _, share in parts if part.p is not None]
    if not ps:
        return Significance(None, None, "none")
    p = min(1.0, *ps)
    floors = [part.floor / share for part, _, share in parts if part.floor is not None]
    floor = min(1.0, *floors) if len(floors) == len(ps) else None
    by_exact = exact.p is not None and (rank.p is None or exact.p / _EXACT_SHARE < rank.p / (1 - _EXACT_SHARE))
    kind = exact.kind if by_exact else "rank"
    return Significance(p, floor, kind, e_value=p_to_e(p), measured_bound=exact.measured_bound if by_exact else None)


def bonferroni(ps: ArrayLike) -> float:
    """Return the p-value min(1, K min p) of K p-values, valid whatever their dependence.

    H0: all K hypotheses hold. `ps` has shape (K,). Raises ValueError for none, or one outside [0, 1].

    >>> bonferroni([0.01, 0.4])
    0.02
    """
    values = _p_values(ps)
    return float(min(1.0, len(values) * values.min()))


def holm(ps: ArrayLike) -> Floats:
    """Return K adjusted p-values: accusing wherever one is <= alpha errs anywhere with at most alpha.

    H0, one per suspect: this suspect is innocent. Valid whatever the dependence. `ps` and the result have
    shape (K,), in the same order. Raises ValueError for none, or one outside [0, 1].

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]

    References: S. Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statistics 6(2),
    1979.
    """
    values = _p_values(ps)
    order = np.argsort(values)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return adjusted


def fisher(ps: ArrayLike) -> float:
    """Return Fisher's combined p-value, for separate permutation groups of one order test only.

    H0: all K hypotheses hold, and the p-values are independent. Dependence breaks it: four matrices of one
    residual stream reject at .14 instead of .05, so pool them into one test first. `ps` has shape (K,).
    Raises ValueError for none, one outside [0, 1], or 0, which no permutation test gives.

    >>> round(fisher([0.05, 0.05]), 4)
    0.0175

    References: R. A. Fisher, Statistical Methods for Research Workers, 4th edition, 1932, section 21.1.
    """
    from scipy.stats import chi2

    values = _p_values(ps)
    if not values.all():
        raise ValueError("expected p-values above 0, got 0: a permutation p-value is (1 + #)/(B + 1)")
    return float(chi2.sf(-2 * np.log(values).sum(), 2 * len(values)))


def cluster_p(seen: float, null: ArrayLike, clusters: Sequence[str]) -> Significance:
    """Return the largest of the rank p-values against each cluster of nulls (architecture, data, recipe).

    H0: the suspect is one more innocent of *one* of the clusters, whichever; the floor is the smallest
    cluster's. `null` has shape (m,), `clusters` names the cluster of each.
    Raises ValueError where they do not fit.

    >>> p = cluster_p(0.9, [0.1, 0.2, 0.3, 0.8, 0.95], ["mlp", "mlp", "mlp", "cnn", "cnn"])
    >>> round(p.p, 3), round(p.floor, 3)
    (0.667, 0.333)
    """
    pool, names = np.asarray(null, dtype=float), np.asarray(clusters, dtype=str)
    if pool.ndim != 1 or pool.shape != names.shape:
        raise ValueError(f"expected one cluster name per null score (m,), got {names.shape} for {pool.shape}")
    parts = [rank_p(seen, pool[names == name]) for name in np.unique(names)]
    if not parts:
        return Significance(None, None, "none")
    p, floor = (max(getattr(part, field) for part in parts) for field in ("p", "floor"))
    return Significance(p, floor, "rank", e_value=p_to_e(p))


def _p_values(ps: ArrayLike) -> Floats:
    values = np.asarray(ps, dtype=float)
    if values.ndim != 1 or not values.size or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"expected p-values in [0, 1] of shape (K,), K >= 1, got {values}: drop what is None")
    return values
