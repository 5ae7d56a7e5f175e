"""Intervals on rates, over models.

A rate without an interval is a rumour: 0 false alarms among 27 innocents still allows a rate of one in ten.
"""

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
