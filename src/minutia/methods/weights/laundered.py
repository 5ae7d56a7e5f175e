"""Laundered checkpoints: whether two transformers share hidden units, in any order, rotation and scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb

import numpy as np

from minutia.core.digest import Array
from minutia.methods.weights.streams import Alignment, Rows, Stream, orthogonalised
from minutia.stats.matching import matched

ALLOWANCE = 0.05
"""Share of units that may agree in independent models, which learn partly the same features."""
UNITS = 256
"""Units of the first checkpoint's layer that are looked for in the second's."""
LAYERS = 8
"""Layers of the first checkpoint that are looked for in the second's."""
NEAREST = 8
"""Units of the second that each of the first may be assigned to, where all of them would be too many."""
LARGEST = 2**18
"""Entries of a similarity table up to which all units may be assigned to all."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How often routes agree on a unit's partner, per pair of layers.

    ``counts`` (layers of the first, layers of the second) adds the agreeing units over ``pairs`` of routes, out of
    ``units`` (layers of the first) that were looked for; ``rows`` names the layers of the first; ``partners`` holds
    for each pair of layers the partners on which two routes agree, -1 elsewhere, and ``looked`` the units.
    """

    counts: Array
    units: Array
    pairs: int
    rows: tuple[int, ...]
    looked: tuple[Array, ...]
    partners: dict[tuple[int, int], Array]

    @property
    def shares(self) -> Array:
        """Share of agreeing units (layers of the first, layers of the second)."""
        return np.asarray(self.counts / (self.pairs * self.units[:, None]))

    @property
    def path(self) -> tuple[tuple[int, int], ...]:
        """The best monotone alignment of layers: (row, column) of each pair."""
        return monotone(self.counts)

    @property
    def strip(self) -> Array:
        """Share of agreeing units in each row's partner layer; NaN for a row without one."""
        found = np.full(len(self.rows), np.nan)
        for row, column in self.path:
            found[row] = self.shares[row, column]
        return found

    def p_value(self, allowance: float = ALLOWANCE) -> float:
        """The larger of two p-values: matched against mismatched layers, and share against an allowance.

        H0: units agree no more often between corresponding layers than between other layers of the same two files,
        or fewer than ``allowance`` of them agree; valid if either holds. A file of one layer, or one whose layers
        have nothing to be compared with, is judged by the share alone.
        """
        from scipy.stats import binom

        path = self.path
        on = sum(int(self.counts[row, column]) for row, column in path)
        tries = comb(max(self.counts.shape), min(self.counts.shape))
        looked = sum(int(self.units[row]) for row, _ in path)
        share = binom.sf(ceil(on / self.pairs) - 1, looked, allowance)
        expected = float(np.sum([self.units[row] for row, _ in path]) / (self.units.sum() * self.counts.shape[1]))
        mismatched = binom.sf(on - 1, int(self.counts.sum()), expected) if self.counts.size > len(path) else 0.0
        return float(min(1.0, tries * max(share, mismatched)))


def agreement(first: Stream, second: Stream, alignment: Alignment, rng: np.random.Generator) -> Agreement:
    """Match hidden units by each route alone, in every pair of layers, and count where routes agree.

    Routes are gate, up and down, or up and down; each is made orthogonal to the unit's routes before it, for rows
    of one unit are correlated and would agree in any basis. Up and down may change sign together behind a gate.
    UNITS units of LAYERS layers of the first, drawn with ``rng``, are looked for among all units of the second.

    Source: Zhu, Ahmed, Kuditipudi, Liang, "Independence Tests for Language Models", ICML 2025, arXiv 2502.12292
    (matching gate and up). Orthogonal routes, the third route, the least-shared half and mismatched layers are ours.
    """
    picked = np.sort(rng.permutation(len(first.blocks))[:LAYERS])
    looked = [np.sort(rng.permutation(first.units(i))[:UNITS]) for i in picked]
    mine = [_turned(first.rows(int(i), units), alignment.first) for i, units in zip(picked, looked, strict=True)]
    routes = len(mine[0])
    counts = np.zeros((len(picked), len(second.blocks)), dtype=np.int64)
    partners = {}
    for column in range(len(second.blocks)):
        theirs = _turned(second.rows(column), alignment.second)
        for row, own in enumerate(mine):
            orders = [
                _order(a, b, signed=routes == 2 or at == 0, rng=rng)
                for at, (a, b) in enumerate(zip(own, theirs, strict=True))
            ]
            counts[row, column], partners[row, column] = _agreeing(orders)
    units = np.array([len(u) for u in looked])
    return Agreement(counts, units, comb(routes, 2), tuple(map(int, picked)), tuple(looked), partners)


def _turned(routes: Rows, turn: Array) -> Rows:
    return tuple(rows @ turn for rows in orthogonalised(routes))


def _order(first: Array, second: Array, *, signed: bool, rng: np.random.Generator) -> Array:
    """The partner of each row of the first among rows of the second."""
    table = first @ second.T
    if not signed:
        table = np.abs(table)
    for axis in (1, 0):
        centre = table - table.mean(axis=axis, keepdims=True)
        spread = centre.std(axis=axis, keepdims=True)
        table = centre / np.where(spread > 0, spread, 1.0)
    if table.size <= LARGEST:
        return matched(table, rng)
    some = np.unique(np.argpartition(-table, NEAREST, axis=1)[:, :NEAREST])
    found = matched(table[:, some], rng)
    return np.asarray(np.where(found >= 0, some[found], -1))


def _agreeing(orders: Sequence[Array]) -> tuple[int, Array]:
    """Agreements over all pairs of routes, and the partner of each unit on which two routes agree."""
    count, partner = 0, np.full(len(orders[0]), -1, dtype=np.int64)
    for at, one in enumerate(orders):
        for other in orders[at + 1 :]:
            same = (one == other) & (one >= 0)
            count += int(same.sum())
            partner = np.where(same, one, partner)
    return count, partner


def monotone(gains: Array) -> tuple[tuple[int, int], ...]:
    """Pair every row (or column, whichever are fewer) with one of the other, in order, so that the sum is largest.

    >>> monotone(np.array([[1, 0, 0], [0, 0, 5]]))
    ((0, 0), (1, 2))
    """
    if gains.shape[0] > gains.shape[1]:
        return tuple((row, column) for column, row in monotone(gains.T))
    rows, columns = gains.shape
    best = np.full((rows + 1, columns + 1), -np.inf)
    best[0] = 0
    for i in range(1, rows + 1):
        for j in range(i, columns + 1):
            best[i, j] = max(best[i, j - 1], best[i - 1, j - 1] + gains[i - 1, j - 1])
    path, j = [], columns
    for i in range(rows, 0, -1):
        while j > i and best[i, j] == best[i, j - 1]:
            j -= 1
        path.append((i - 1, j - 1))
        j -= 1
    return tuple(reversed(path))
