"""Evidence that may be looked at any time: e-values and the label e-process.

An e-value is a nonnegative number whose expectation under H0 is at most 1: large is evidence, and by
Markov's inequality it exceeds 1/alpha with probability at most alpha. An e-process keeps that promise at
every stopping time (Ville).
"""

import math
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# A mixture over alternatives, not one guess: bold bets win on plain copies, timid ones survive weak ones.
_BETS: Floats = np.array([0.25, 0.5, 0.75, 0.95])
_LOG_LARGEST = math.log(sys.float_info.max)


def p_to_e(p: float, kappa: float = 0.5) -> float:
    """Return the e-value `kappa * p**(kappa - 1)` that a p-value is worth: .01 is worth 5 only.

    Raises ValueError for p outside [0, 1] or kappa outside (0, 1).

    >>> p_to_e(0.01)
    5.0

    References: V. Vovk and R. Wang, E-values: calibration, combination and applications, Annals of
    Statistics 49(3), 2021.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], got {p}: pass a p-value, not a score")
    if not 0 < kappa < 1:
        raise ValueError(f"kappa must lie in (0, 1), got {kappa}: 0.5 is the default of the house")
    return kappa * float(p) ** (kappa - 1) if p > 0 else math.inf


def e_to_p(e_value: float) -> float:
    """Return the p-value `min(1, 1/e)`, valid by Markov's inequality.

    Raises ValueError for a negative or undefined e-value.

    >>> e_to_p(100.0), e_to_p(0.3)
    (0.01, 1.0)
    """
    if not e_value >= 0:
        raise ValueError(f"an e-value must be at least 0, got {e_value}: is it a logarithm?")
    return 1 / e_value if e_value > 1 else 1.0


def average(e_values: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Return the weighted mean of e-values, an e-value whatever their dependence.

    `e_values` and `weights` have shape (k,); the weights, fixed before looking, are normalised here.
    Raises ValueError for no e-value, a negative one, or weights that do not fit.

    >>> average([8.0, 0.0, 1.0])
    3.0
    >>> average([8.0, 0.0], weights=[1, 3])
    2.0

    References: Vovk and Wang, Annals of Statistics 49(3), 2021, Proposition 3.1.
    """
    values = np.asarray(e_values, dtype=float)
    shares = np.ones_like(values) if weights is None else np.asarray(weights, dtype=float)
    if values.ndim != 1 or not values.size or not (values >= 0).all():
        raise ValueError(f"expected e-values >= 0 of shape (k,), k >= 1, got {values}: drop what is None")
    if shares.shape != values.shape or not (shares >= 0).all() or not 0 < shares.sum() < math.inf:
        raise ValueError(f"expected {values.size} weights >= 0, not all 0, got {shares}: one per e-value")
    used = shares > 0  # an infinite e-value of weight 0 would make the mean undefined
    return float(values[used] @ (shares[used] / shares.sum()))


def full_error(alpha: float, m: int) -> float:
    """Return `alpha + 1/(m+1)`, the error in all of a label e-process whose q0 is the largest of m nulls.

    Two sources add: luck in the order of asking, and an innocent whose true rate exceeds every null's.
    Raises ValueError for alpha outside [0, 1] or m < 0.

    >>> round(full_error(0.01, 6), 3)
    0.153
    """
    if not 0 <= alpha <= 1 or m < 0:
        raise ValueError(f"expected 0 <= alpha <= 1 and m >= 0, got {alpha} and {m}: m counts null models")
    return alpha + 1 / (m + 1)


def _log_growth(score: Floats, expected: Floats, ceiling: Floats) -> Floats:
    """Return the log factor of every bet, shape (..., 4).

    0 where there is no bet, infinite where a match refutes H0 outright.
    """
    bet = (expected > 0) & (expected < ceiling)
    gain = score / np.where(bet, expected, 1.0) - 1
    growth = np.where(bet[..., None], np.log1p(_BETS * gain[..., None]), 0.0)
    refuted = (expected <= 0) & (score > 0)
    return np.where(refuted[..., None], math.inf, growth)


def _mixture(log_wealth: Floats) -> Floats:
    """Return the mean wealth over the bets, shape (...).

    Finite wealth stays finite, so that only a refutation is infinite.
    """
    log_e = np.logaddexp.reduce(log_wealth, axis=-1) - math.log(len(_BETS))
    return np.where(np.isinf(log_e), math.inf, np.exp(np.minimum(log_e, _LOG_LARGEST)))


def _item_weights(weights: ArrayLike | None, total: int, q0: float) -> Floats:
    """Return the weights in the order of asking, scaled to mean 1, shape (..., total); check the null."""
    if total < 1 or not 0 <= q0 <= 1:
        raise ValueError(f"expected total >= 1 and 0 <= q0 <= 1, got {total} and {q0}: q0 is a rate")
    items = np.ones(total) if weights is None else np.asarray(weights, dtype=float)
    fits = items.shape[-1:] == (total,) and bool((np.isfinite(items) & (items >= 0)).all())
    if not fits or not (items.sum(-1) > 0).all():
        raise ValueError(f"expected {total} weights >= 0, not all 0, got shape {items.shape}: one per item")
    return np.asarray(items / items.mean(-1, keepdims=True))


def _per_item(amount: ArrayLike, left: ArrayLike) -> Floats:
    """Return what an amount of matches is per item left."""
    # Rounded, because q0 = k/N must be a budget of k: noise would leave something to bet on after k matches.
    return np.asarray(np.round(np.asarray(amount), 9) / np.asarray(left))


def label_e_path(matches: ArrayLike, total: int, q0: float, weights: ArrayLike | None = None) -> Floats:
    """Return the e-value of the label e-process after each of n answers.

    H0: the suspect's match rate over the *whole list* of `total` queries is at most q0. The list is asked
    in uniformly random order, so only the order is random and the test is exact for this very suspect:

        mu_t = (N q0 - S) / (N - t + 1)          S matches before step t
        W   <- W (1 + lam (x_t - mu_t) / mu_t)   averaged over lam = .25, .5, .75, .95

    No bet is placed while mu_t >= 1; a match at mu_t <= 0 refutes H0 outright and makes the e-value infinite.
    With `weights`, x_t = w_t * match and H0 bounds the weighted rate, sum w x / sum w <= q0.

    `matches` has shape (..., n), n <= total, in the order of asking; `weights` (total,) or (..., total) in
    that order too, fixed in advance; the result has shape (..., n). Raises ValueError where they do not fit.

    >>> label_e_path([True, True, False, True], total=100, q0=0.12).round(2)
    array([ 5.49, 36.46,  8.21, 50.  ])
    >>> label_e_path([True, True], total=2, q0=0.5)
    array([1.6125,    inf])

    References: I. Waudby-Smith and A. Ramdas, Estimating means of bounded random variables by betting, J.
    Roy. Stat. Soc. B 86(1), 2024 (sampling without replacement).
    """
    hits, items = np.atleast_1d(np.asarray(matches)), _item_weights(weights, total, q0)
    n = hits.shape[-1]
    if n > total or not np.isin(hits, (0, 1)).all():
        raise ValueError(f"expected up to {total} matches, True or False, got {hits}: no answer is no match")
    scores = items[..., :n] * hits
    left = total - np.arange(n)
    # What the items left weigh on average, 1 without weights: nobody can match more, there is no bet above.
    ceiling = _per_item(np.flip(np.cumsum(np.flip(items, -1), -1), -1)[..., :n], left)
    expected = _per_item(total * q0 - (np.cumsum(scores, -1) - scores), left)
    growth = _log_growth(scores, expected, ceiling)
    return _mixture(np.cumsum(growth, axis=-2))


class LabelEProcess:
    """The label e-process of `label_e_path`, one answer at a time: stop, go on or ask more whenever you like.

    H0: the suspect's (weighted) match rate over the whole list of `total` queries, asked in uniformly
    random order, is at most q0. Reject at `evidence >= 1/alpha`, `evidence` being the largest e-value so
    far; the error in all is `full_error(alpha, m)` for a q0 taken from m nulls. `weights` (total,) are in the
    order of asking. Raises ValueError for a null that is none, or an answer too many.

    >>> process = LabelEProcess(total=100, q0=0.12)
    >>> for match in (True, True, False):
    ...     process.update(match)
    >>> round(process.e_value, 2), round(process.evidence, 2)
    (8.21, 36.46)
    """

    def __init__(self, total: int, q0: float, weights: Sequence[float] | None = None) -> None:
        self.total, self.q0 = total, q0
        self.asked, self.evidence = 0, 1.0
        self._items = _item_weights(weights, total, q0)
        self._matched = 0.0
        self._log_wealth: Floats = np.zeros(len(_BETS))

    @property
    def e_value(self) -> float:
        """The wealth now, starting from 1."""
        return float(_mixture(self._log_wealth))

    def update(self, match: bool) -> None:
        """Bet on the next answer of the list, which matched or did not; no answer is no match."""
        if self.asked == self.total or match not in (True, False):
            raise ValueError(f"expected {self.total} answers, True or False, got {match!r} after {self.asked}")
        score, left = self._items[self.asked] * match, self.total - self.asked
        expected = _per_item(self.total * self.q0 - self._matched, left)
        ceiling = _per_item(self._items[self.asked :].sum(), left)
        self._log_wealth = self._log_wealth + _log_growth(np.asarray(score), expected, ceiling)
        self.asked, self._matched = self.asked + 1, self._matched + float(score)
        self.evidence = max(self.evidence, self.e_value)
