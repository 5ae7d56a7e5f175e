"""Intervals on rates, over models.

A rate without an interval is a rumour: 0 false alarms among 27 innocents still allows a rate of one in ten.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Interval(NamedTuple):
    """The two ends of a confidence interval on a rate."""

    low: float
    high: float


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the Clopper-Pearson interval on a rate, which covers the truth at least as often as promised.

    The trials are independent models, not queries: 40 attacks on one model are one trial. No trial leaves
    (0, 1).
    Raises ValueError for counts that are none, or a confidence outside (0, 1).

    >>> low, high = clopper_pearson(0, 27)
    >>> low, round(high, 3)
    (0.0, 0.128)
    >>> clopper_pearson(0, 0)
    Interval(low=0.0, high=1.0)

    References: C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits, Biometrika 26(4),
    1934.
    """
    from scipy.stats import beta

    _check(successes, trials, confidence)
    tail, failures = (1 - confidence) / 2, trials - successes
    low = float(beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, failures)) if failures else 1.0
    return Interval(low, high)


def clustered(hits: Sequence[int], sizes: Sequence[int], confidence: float = 0.95) -> Interval:
    """Return the Clopper-Pearson interval of trials that come in clusters, such as copies of one owner.

    ``hits`` of ``sizes`` per cluster. Copies of one owner fare alike, so thirty copies of five owners are worth fewer
    than thirty: counts are divided by the design effect 1 + (n - 1) * ICC, the intraclass correlation estimated by
    analysis of variance. Where every trial or none hits nothing can be estimated, and the plain interval is returned.
    Raises ValueError as ``clopper_pearson`` does.

    >>> [round(x, 2) for x in clustered([0, 6, 3, 0, 6], [6] * 5)], [round(x, 2) for x in clopper_pearson(15, 30)]
    ([0.12, 0.88], [0.31, 0.69])

    References: L. Kish, Survey Sampling, Wiley 1965 (the design effect); A. Donner and N. Klar, Design and Analysis of
    Cluster Randomization Trials, 2000 (the estimate of the correlation).
    """
    from scipy.stats import beta

    found, n = zip(*[(h, s) for h, s in zip(hits, sizes, strict=True) if s], strict=True) if any(sizes) else ((), ())
    total, whole = sum(n), sum(found)
    plain = clopper_pearson(whole, total, confidence)
    if len(n) < 2 or total == len(n) or whole in (0, total):
        return plain
    effect = _design_effect(found, n)
    tail, h, m = (1 - confidence) / 2, whole / effect, total / effect
    return Interval(float(beta.ppf(tail, h, m - h + 1)), float(beta.ppf(1 - tail, h + 1, m - h)))


def _design_effect(hits: Sequence[int], sizes: Sequence[int]) -> float:
    total, clusters = sum(sizes), len(sizes)
    squares = sum(s * s for s in sizes) / total
    rate = sum(hits) / total
    between = sum(s * (h / s - rate) ** 2 for h, s in zip(hits, sizes, strict=True)) / (clusters - 1)
    within = sum(h * (1 - h / s) for h, s in zip(hits, sizes, strict=True)) / (total - clusters)
    usual = (total - squares) / (clusters - 1)
    alike = (between - within) / (between + (usual - 1) * within) if between + within > 0 else 0.0
    return 1 + (squares - 1) * min(max(alike, 0.0), 1.0)


def upper_bound_if_none(trials: int, confidence: float = 0.95) -> float:
    """Return what "none among m" is worth: the one-sided upper bound 1 - (1 - confidence)**(1/m) on the rate.

    `trials` is m and counts independent models; none leaves 1.
    Raises ValueError for trials < 0 or a confidence outside (0, 1).

    >>> [round(upper_bound_if_none(m), 3) for m in (0, 27, 60, 300)]
    [1.0, 0.105, 0.049, 0.01]
    """
    _check(0, trials, confidence)
    return float(1 - (1 - confidence) ** (1 / trials)) if trials else 1.0


def _check(successes: int, trials: int, confidence: float) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"expected 0 <= successes <= trials, got {successes} of {trials}: count models, not rates")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}: write 0.95 for 95 %")
