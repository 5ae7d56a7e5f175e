"""Which of two related checkpoints was trained first, as far as their weights tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from minutia.core.digest import Array
from minutia.methods.weights.forest_sketch import TALL, Sketch

EXACT = 1e-5
"""Relative change of a squared length that counts as none."""
DECAYED = 0.1
"""Log-odds per row that kept its direction and shrank: decay does that to rows without use, and nothing undoes it."""
SURE = 6.0
"""Largest log-odds by such rows."""
SAME = 1e-6
"""Squared sine, or relative squared distance, below which two rows are the same."""
WEIGHTS = (1.2, 1.2, 0.5)
"""Log-odds per unit of each of ``SIGNS``."""
SIGNS = ("grown where changed", "gains left one", "longer")
"""What speaks for the second being the child: rows that changed more grew more, the scales of norms lie farther from
one, at which training starts, and weights are longer."""
MOST = 2.5
"""Largest log-odds of one pair: signs are not independent."""


@dataclass(frozen=True, eq=False)
class Relations:
    """Checkpoints of one layout, pair by pair and tensor by tensor.

    ``squares`` (tensors, n, n) are squared distances relative to the tensor's mean square length, ``inner`` cosines,
    ``there`` the slope of the second's weights on the first's, ``near`` the logarithm of the squared sine between rows,
    mean over ``rows``, of tables of
    tokens ``kept`` counts those that have one direction in both and ``shrunk`` how many more of these are shorter in
    the second than longer, ``signs`` (signs, tensors, n, n) what speaks for the
    second being made from the first; its negative speaks for the reverse.
    """

    squares: Array
    inner: Array
    there: Array
    near: Array
    signs: Array
    rows: Array
    kept: Array
    shrunk: Array

    @classmethod
    def of(cls, sketches: Sequence[Sketch]) -> Self:
        """Of sketches that have one layout."""
        gains = _gains(sketches, [name for name, shape in sketches[0].layout if len(shape) < 2])
        found = [_by_tensor(np.stack([s.values[t].astype(np.float64) for s in sketches])) for t in sketches[0].matrices]
        squares, inner, there, near, grown, longer, kept, shrunk = (np.stack(part) for part in zip(*found, strict=True))
        signs = np.stack([grown, np.broadcast_to(gains, grown.shape), longer])
        rows = np.array([len(sketches[0].values[tensor]) for tensor in sketches[0].matrices])
        return cls(squares, inner, there, near, signs, rows, kept, shrunk)

    def among(self, places: Sequence[int]) -> "Relations":
        """Those at some places alone."""
        own = np.ix_(places, places)
        squares, inner, there, near, signs, kept, shrunk = (
            part[..., own[0], own[1]]
            for part in (self.squares, self.inner, self.there, self.near, self.signs, self.kept, self.shrunk)
        )
        return Relations(squares, inner, there, near, signs, self.rows, kept, shrunk)

    def log_odds(self, weights: Array) -> Array:
        """Log-odds (n, n) of first to second against second to first, tensors weighed by ``weights``."""
        seen = np.tensordot(np.array(WEIGHTS), np.average(self.signs, axis=1, weights=weights), 1)
        decayed = DECAYED * np.tensordot(weights, self.shrunk, 1)
        return np.asarray(np.clip(seen, -MOST, MOST) + np.clip(decayed, -SURE, SURE))

    def sines(self) -> Array:
        """Sines (n, n) between weights, over all tensors; lengths do not matter."""
        return np.asarray(np.sqrt((1 - np.minimum(self.inner**2, 1)).mean(axis=0)))


def _gains(sketches: Sequence[Sketch], vectors: Sequence[str]) -> Array:
    """How much farther from one the second's norms are (n, n), from -1 to 1; 0 where there are none."""
    scales = [v for v in vectors if abs(float(np.median([s.values[v].mean() for s in sketches])) - 1) < 1]
    if not scales:
        return np.zeros((len(sketches), len(sketches)))
    off = np.array([np.mean([np.mean((s.values[v] - 1) ** 2) for v in scales]) for s in sketches])
    floor = max(1e-12, 1e-6 * float(off.max()))
    return np.asarray(np.tanh(np.log((off + floor) / (off[:, None] + floor)) / 0.2))


def _by_tensor(rows: Array) -> tuple[Array, ...]:
    """All that one tensor says, each (n, n), from its rows (n, rows, columns)."""
    flat = rows.reshape(len(rows), -1)
    gram = flat @ flat.T
    size = np.maximum(np.diagonal(gram), 1e-300)
    squares = np.maximum(size[:, None] + size - 2 * gram, 0) / size.mean()
    inner, there = gram / np.sqrt(size[:, None] * size), gram / size[:, None]
    longer = np.tanh(np.log(size / size[:, None]) / 0.05)
    near, grown, kept, shrunk = _by_rows(rows)
    table = rows.shape[1] >= TALL * rows.shape[2]
    return squares, inner, there, near, grown, longer, kept * table, shrunk * table


def _by_rows(rows: Array) -> tuple[Array, Array, Array, Array]:
    """From rows (n, rows, columns), each (n, n): logarithm of the squared sine, mean over rows, and three counts.

    These are the correlation, over rows, of how much longer rows became with how much they changed; rows that kept
    their direction; and how many more of them shrank than grew.
    """
    gram = np.einsum("irc,jrc->rij", rows, rows, optimize=True)
    size = np.maximum(np.diagonal(gram, axis1=1, axis2=2), 1e-300)
    first, second = size[:, :, None], size[:, None, :]
    sines = 1 - np.minimum(gram**2 / (first * second), 1)
    change = np.maximum(first + second - 2 * gram, 0)
    grown = np.tanh(2 * _correlation(np.log(second / first), change / np.sqrt(first * second)))
    kept, longer = sines < SAME, np.log(second / first)
    shrunk = (kept & (longer < -EXACT)).sum(axis=0) - (kept & (longer > EXACT)).sum(axis=0)
    return np.log(sines + SAME).mean(axis=0), grown, kept.sum(axis=0), shrunk


def _correlation(first: Array, second: Array) -> Array:
    """Correlation over the first axis; 0 where one is constant."""
    a, b = first - first.mean(axis=0), second - second.mean(axis=0)
    spread = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.asarray(np.where(spread > 0, (a * b).sum(axis=0) / np.where(spread > 0, spread, 1), 0))
