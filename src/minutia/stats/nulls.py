"""Nulls: how often an innocent model would look this similar.

A similarity is not evidence. Each function here says what H0 is, returns a `Significance` with the smallest
p-value that its null could give, and says of which kind the null is, because only some kinds may decide.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minutia.stats.evalues import e_to_p, full_error, p_to_e

Floats = NDArray[np.float64]
Kind = Literal["exact", "rank", "assumed", "extrapolated", "none"]

# Stands for probabilities too small for a float: 0 would claim too much.
_SMALLEST = sys.float_info.min


@dataclass(frozen=True)
class Significance:
    """What a score is worth against a null.

    p: probability under H0 of a score at least this large; None exactly where there is no null.
    floor: the smallest p this null could give, printed next to every p.
    kind: `exact` and `rank` decide; `assumed` decides with a measured Type-I error on file;
        `extrapolated` is shown and never decides; `none` is the absence of a null.
    e_value: the same evidence as an e-value, where it has one.
    full_error: probability of a false accusation where two sources of error add (the label e-process).
    measured_bound: upper bound on the Type-I error that was measured for an assumed null.
    Raises ValueError for numbers that contradict each other.

    >>> Significance(0.01, 0.01, "rank").decides, Significance(1e-9, None, "extrapolated").decides
    (True, False)
    """

    p: float | None
    floor: float | None
    kind: Kind
    e_value: float | None = None
    full_error: float | None = None
    measured_bound: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        if (self.p is None) != (self.kind == "none"):
            raise ValueError(f"p is None for kind 'none' only, got {self.p} of {self.kind!r}: name the null")
        for name in ("p", "floor", "full_error", "measured_bound"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value}: it is a probability")
        if self.p is not None and self.floor is not None and self.p < self.floor:
            raise ValueError(f"p must be at least its floor, got {self.p} < {self.floor}: forgot the +1?")
        if self.e_value is not None and not self.e_value >= 0:
            raise ValueError(f"e_value must be at least 0, got {self.e_value}: is it a logarithm?")

    @property
    def decides(self) -> bool:
        """Whether a verdict may rest on this p."""
        return self.kind in ("exact", "rank") or (self.kind == "assumed" and self.measured_bound is not None)


def rounded(scores: ArrayLike, like: ArrayLike, decimals: int = 9) -> Floats:
    """Return scores rounded to `decimals` significant decimals, so that float noise breaks no tie.

    Significant for the score itself or for the typical (median) size in `like`, whichever is coarser: near 0
    noise is all that is left of a difference. Rounding keeps the order, hence only adds ties, and ties count
    against the accuser: it is valid whatever `like` is. Keeps the shape.
    Raises ValueError for NaN, which means "not measured" and has no rank.

    >>> rounded([0.1 + 0.2, 0.3, 1e-17], like=[0.3, 0.5]).tolist()
    [0.3, 0.3, 0.0]
    """
    values = np.asarray(scores, dtype=float)
    if np.isnan(values).any():
        raise ValueError("expected scores, got NaN: drop what was not measured for suspect and nulls alike")
    sizes = np.abs(np.asarray(like, dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    digits = decimals - 1
    places = digits - math.floor(math.log10(np.median(sizes))) if sizes.size else sys.float_info.max_10_exp
    # Text and Python's rounding are correct to the last bit; products with powers of ten differ by machine.
    flat = [round(float(f"{value:.{digits}e}"), places) for value in values.ravel().tolist()]
    return np.array(flat, dtype=float).reshape(values.shape)


def rank_p(seen: float, null: ArrayLike, *, decimals: int = 9) -> Significance:
    """Return the conformal p-value of a score among m null scores, (1 + #{null >= seen}) / (1 + m).

    H0: the suspect is one more innocent, exchangeable with the null models. Ties count against the accuser;
    scores are rounded first (see `rounded`). `null` has shape (m,), one score per independently trained
    model; m = 0 is no null. Raises ValueError for NaN or another shape.

    >>> rank_p(0.9, [0.1, 0.5, 0.9, 0.2]).p
    0.4
    >>> rank_p(0.9, []).kind
    'none'

    References: V. Vovk, A. Gammerman and G. Shafer, Algorithmic Learning in a Random World, Springer 2005;
    B. Phipson and G. Smyth, Permutation p-values should never be zero, Stat. Appl. Genet. Mol.
    Biol. 9(1), 2010.
    """
    pool = np.asarray(null, dtype=float)
    if pool.ndim != 1:
        raise ValueError(f"expected null scores of shape (m,), got {pool.shape}: one score per model")
    exceeding = int(np.sum(rounded(pool, pool, decimals) >= rounded(seen, pool, decimals)))
    if not pool.size:
        return Significance(None, None, "none")
    p, floor = (1 + exceeding) / (1 + pool.size), 1 / (1 + pool.size)
    return Significance(p, floor, "rank", e_value=p_to_e(p))


def e_process_p(evidence: float, m: int) -> Significance:
    """Return the p-value of a label e-process whose q0 is the largest of m nulls, 1/evidence + 1/(m+1).

    H0: the suspect is one more innocent. Both sources of error are in p, so deciding at p <= alpha errs by
    alpha in all, at any stopping time. `evidence` is the largest e-value so far; m = 0 is no null.
    Raises ValueError for a negative e-value.

    >>> p = e_process_p(evidence=400.0, m=199)
    >>> p.p, p.floor, p.full_error
    (0.0075, 0.005, 0.0075)
    """
    luck = e_to_p(evidence)
    if m == 0:
        return Significance(None, None, "none")
    p = min(1.0, full_error(luck, m))
    return Significance(p, 1 / (m + 1), "rank", e_value=evidence, full_error=p)


def exact_binomial(hits: int, n: int, rate: float) -> Significance:
    """Return the upper tail P(Binomial(n, rate) >= hits).

    H0: the suspect was made without knowledge of n labels that the owner drew at random, each matched with
    probability `rate`. Only for labels from a committed seed: innocents share natural labels and match far
    above 1/classes. Raises ValueError for impossible counts or a rate outside (0, 1).

    >>> exact_binomial(3, 3, 0.5).p
    0.125
    >>> exact_binomial(6, 10, 0.5).p
    0.376953125
    """
    from scipy.stats import binom

    _check_counts(hits, n)
    if not 0 < rate < 1:
        raise ValueError(f"rate must lie in (0, 1), got {rate}: the chance that a label drawn at random matches")
    floor = max(rate**n, _SMALLEST)
    p = min(1.0, max(float(binom.sf(hits - 1, n, rate)), floor))
    return Significance(p, floor, "exact", e_value=p_to_e(p))


def fixed_points_p(k: int, groups: int = 1) -> float:
    """Return the bound groups**k / k!, at most 1, on the chance that k or more units stay in place.

    H0: the suspect's units stand in uniformly random order, independently in each of `groups` groups. Valid
    for groups of any size, where the usual Spearman routine returns 0 for 8 units in order.
    Raises ValueError for k < 0 or groups < 1.

    >>> f"{fixed_points_p(8):.1e}", fixed_points_p(2, groups=4)
    ('2.5e-05', 1.0)
    """
    if k < 0 or groups < 1:
        raise ValueError(f"expected k >= 0 fixed points in groups >= 1, got k={k}, groups={groups}")
    return max(_SMALLEST, math.exp(min(0.0, k * math.log(groups) - math.lgamma(k + 1))))


def extrapolated_beta_binomial(
    hits: int, n: int, null_hits: ArrayLike, null_n: ArrayLike | None = None
) -> Significance:
    """Return the upper tail of a beta-binomial fitted to m null models: shown, never decides.

    H0: the suspect's match rate is drawn from a Beta distribution, as the null models' are. Their spread
    beyond the binomial's is why binomial tails accuse innocents (.14 at .05 in the slow tests), so it is estimated (by
    moments); the tail beyond the largest null is still a guess. `null_hits` has shape (m,), out of `null_n`
    (m,) answers, by default n. Raises ValueError for counts that are none, or fewer than 2 models or answers.

    >>> extrapolated_beta_binomial(45, 50, [20, 25, 17, 23, 28, 19]).decides
    False
    >>> round(extrapolated_beta_binomial(35, 50, [20, 25, 17, 23, 28, 19]).p, 3)
    0.001

    References: J. G. Skellam, A probability distribution derived from the binomial distribution, J. Roy.
    Stat. Soc. B 10(2), 1948.
    """
    from scipy.stats import betabinom

    _check_counts(hits, n)
    counts = np.asarray(null_hits, dtype=float)
    asked = np.broadcast_to(np.asarray(n if null_n is None else null_n, dtype=float), counts.shape)
    valid = (counts >= 0) & (counts <= asked) & (asked >= 2)
    if counts.ndim != 1 or counts.size < 2 or not valid.all():
        raise ValueError(f"expected match counts of 2 or more nulls and answers, got {counts} of {asked}")
    # Half a match more, half a mismatch more: a mean of exactly 0 or 1 would leave no distribution.
    mean = (counts.sum() + 0.5) / (asked.sum() + 1)
    binomial = np.mean(1 / asked)  # variance of a match rate without overdispersion, over mean (1 - mean)
    excess = np.var(counts / asked, ddof=1) / (mean * (1 - mean)) - binomial
    correlation = min(max(excess / (1 - binomial), 1e-6), 1 - 1e-6)  # open ends: both limits are degenerate
    size = (1 - correlation) / correlation
    shape = (n, mean * size, (1 - mean) * size)
    floor = min(1.0, max(float(betabinom.sf(n - 1, *shape)), _SMALLEST))
    return Significance(min(1.0, max(float(betabinom.sf(hits - 1, *shape)), floor)), floor, "extrapolated")


def critical_rank(alpha: float, m: int) -> int:
    """Return k = floor(alpha (m+1)): a score decides at alpha when fewer than k of m null scores reach it.

    0 where m nulls cannot decide at alpha. Raises ValueError for alpha outside (0, 1) or m < 0.

    >>> critical_rank(0.05, 99), critical_rank(0.29, 99), critical_rank(0.01, 98)
    (5, 29, 0)
    """
    if m < 0:
        raise ValueError(f"m must be at least 0, got {m}: it counts null models")
    return math.floor(_exactly(alpha) * (m + 1))


def calibrators_needed(alpha: float, kind: Literal["path", "portfolio", "e-process"] = "path") -> int:
    """Return the least number m of null models with which a test can decide at level alpha.

    A path test needs 1/(m+1) <= alpha. A portfolio spends a tenth of alpha on its exact part, and needs
    1/(m+1) <= .9 alpha. The label e-process errs twice, half of alpha each, and needs 1/(m+1) <= alpha/2.
    Raises ValueError for another kind or alpha outside (0, 1).

    >>> [calibrators_needed(0.01, kind) for kind in ("path", "portfolio", "e-process")]
    [99, 111, 199]
    """
    shares = {"path": Fraction(1), "portfolio": Fraction(9, 10), "e-process": Fraction(1, 2)}
    if kind not in shares:
        raise ValueError(f"kind must be one of {', '.join(shares)}, got {kind!r}")
    return math.ceil(1 / (shares[kind] * _exactly(alpha))) - 1


def type_one_bound(trials: int, m: int, alpha: float, confidence: float = 0.975) -> int:
    """Return how many false alarms among `trials` innocents a valid test against one set of m nulls may give.

    The 97.5 % point of BetaBinomial(trials; k, m + 1 - k), k = critical_rank(alpha, m): the innocents share
    one null set, so a valid test often exceeds the binomial interval. There is no lower bound, because ties
    make valid tests conservative. Raises ValueError for trials < 0 or levels outside (0, 1).

    >>> type_one_bound(300, 99, 0.01), type_one_bound(300, 99, 0.05)
    (12, 32)
    """
    from scipy.stats import betabinom

    if trials < 0 or not 0 < confidence < 1:
        raise ValueError(f"expected trials >= 0, confidence in (0, 1), got {trials}, {confidence}: count models")
    k = critical_rank(alpha, m)
    return int(betabinom.ppf(confidence, trials, k, m + 1 - k)) if k else 0


def type_one_bound_over(sizes: Sequence[tuple[int, int]], alpha: float, confidence: float = 0.975) -> int:
    """Return the bound of ``type_one_bound`` for the false alarms of several studies together.

    ``sizes`` holds (trials, m) per study, each with a null set of its own. The bound is a point of the distribution of
    the sum: adding the studies' own bounds would allow too little where they are small, and too much where they are
    large. Raises ValueError as ``type_one_bound`` does.

    >>> type_one_bound_over([(300, 99)], 0.01), type_one_bound_over([(2, 99)] * 3, 0.01)
    (12, 1)
    """
    from scipy.stats import betabinom

    whole = np.ones(1)
    for trials, m in sizes:
        type_one_bound(trials, m, alpha, confidence)
        if k := critical_rank(alpha, m):
            whole = np.convolve(whole, betabinom.pmf(np.arange(trials + 1), trials, k, m + 1 - k))
    return int(np.searchsorted(np.cumsum(whole), confidence - 1e-12))


def redrawn_rate(
    scores: ArrayLike,
    m: int,
    alpha: float,
    redraws: int,
    rng: np.random.Generator,
    tested: ArrayLike | None = None,
) -> float:
    """Return the mean false-alarm rate at level alpha over redrawn sets of m nulls.

    Each redraw takes m calibrators from the pool and tests the rest of it, or the innocents in `tested`.
    Within one pool the draw itself makes both exchangeable, so the mean is at most alpha by construction:
    what can fail are innocents `tested` that were scored by another rung, day or code path. `scores` has
    shape (pool,), `tested` (n,). Raises ValueError where the pool leaves nobody to test, or for redraws < 1.

    >>> rng = np.random.default_rng(0)
    >>> round(redrawn_rate(rng.normal(size=200), 99, 0.05, 500, rng), 2)
    0.05
    >>> redrawn_rate(rng.normal(size=200), 99, 0.05, 500, rng, tested=rng.normal(2.0, size=300)) > 0.4
    True
    """
    pool = rounded(scores, scores)
    left = pool.size - m if tested is None else np.size(tested)
    if redraws < 1 or pool.ndim != 1 or pool.size < m or left < 1:
        raise ValueError(f"expected 1 or more redraws of {m} from a pool and innocents left, got {pool.shape}")
    k = critical_rank(alpha, m)
    if k == 0:
        return 0.0
    rows = rng.permuted(np.tile(pool, (redraws, 1)), axis=1)
    thresholds = np.sort(rows[:, :m], axis=1)[:, m - k]  # an alarm exceeds the k-th largest calibrator
    if tested is None:
        return float(np.mean(rows[:, m:] > thresholds[:, None]))
    innocents = np.sort(rounded(tested, pool))
    return float(np.mean(1 - np.searchsorted(innocents, thresholds, side="right") / len(innocents)))


def _check_counts(hits: int, n: int) -> None:
    if not 0 <= hits <= n:
        raise ValueError(f"expected 0 <= hits <= n, got {hits} of {n}: counts of answers, not rates")


def _exactly(alpha: float) -> Fraction:
    """Return alpha as the decimal it was written as: .29 * 100 is 29, where floats make it 28.999."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie in (0, 1), got {alpha}: write 0.01 for 1 %")
    return Fraction(str(float(alpha)))
