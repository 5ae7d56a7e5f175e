"""Laundered checkpoints: whether two transformers share hidden units, in any order, rotation and scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil, comb, inf

import numpy as np

from minutia.core.digest import Array
from minutia.methods.weights.products import sampled
from minutia.methods.weights.streams import Alignment, Rows, Stream, orthogonalised
from minutia.stats.matching import matched

ALLOWANCE = 0.05
"""Share of units that may agree in independent models, which learn partly the same features."""
TOP = 0.05
"""What counts as best by the route left out: this share of the second's units."""
HELD_ALLOWANCE = 0.1
"""Share of units that may be among these in independent models: TOP by chance, .07 at most in the laboratory."""
UNITS = 256
"""Units of the first checkpoint's layer that are looked for in the second's."""
LAYERS = 8
"""Layers of the first checkpoint that are looked for in the second's."""
FEW = 2
"""Layers that are compared in place, for they are compared many times."""
FEWER = 4
"""The same where layers are large."""
SKETCH = 256
"""Coordinates in which units of large layers are compared, drawn with the seed."""
NEAREST = 4
"""Units of the second that each of the first may be assigned to, where all of them would be too many."""
LARGEST = 2**18
"""Entries of a similarity table up to which all units may be assigned to all."""


@dataclass(frozen=True, eq=False)
class Grid:
    """How often something holds of units, in every pair of layers: ``counts`` (layers of the first, of the second).

    Every unit of the first is counted ``weight`` times at most; ``units`` (layers of the first) were looked for.
    """

    counts: Array
    units: Array
    weight: int
    allowance: float

    @property
    def shares(self) -> Array:
        """Share of units (layers of the first, layers of the second)."""
        return np.asarray(self.counts / (self.weight * self.units[:, None]))

    @property
    def path(self) -> tuple[tuple[int, int], ...]:
        """The best monotone alignment of layers: (row, column) of each pair."""
        return monotone(self.counts)

    def p_value(self) -> float:
        """The larger of two p-values: matched against mismatched layers, and share against the allowance.

        H0: it holds no more often between corresponding layers than between other layers of the same two files, or
        of fewer than ``allowance`` of the units; valid if either is true. Where there are no other layers, the share
        alone is judged. A unit counts once, however many routes speak for it, for routes are not independent.
        Alignments of layers are counted as so many tries.
        """
        from scipy.stats import binom

        path = self.path
        on = sum(int(self.counts[row, column]) for row, column in path)
        tries = ways(self.counts.shape)
        looked = sum(int(self.units[row]) for row, _ in path)
        p = binom.sf(ceil(on / self.weight) - 1, looked, self.allowance)
        if self.counts.size > len(path):
            expected = looked / (int(self.units.sum()) * self.counts.shape[1])
            p = max(p, binom.sf(ceil(on / self.weight) - 1, ceil(self.counts.sum() / self.weight), expected))
        return float(min(1.0, tries * p))


@dataclass(frozen=True, eq=False)
class Agreement:
    """What routes say about the units of two checkpoints.

    ``agreed`` counts the units on whose partner two routes agree; ``held_out`` those whose partner by the other
    routes is among the ``TOP`` best by the route that was left out, which sees fainter relations. ``rows`` names the
    layers of the first and ``looked`` their units; ``partners`` are those that two routes agree on, -1 for none.
    ``alive`` of the units looked for have any weights to be found by.
    """

    agreed: Grid
    held_out: Grid
    rows: tuple[int, ...]
    looked: tuple[Array, ...]
    partners: Mapping[tuple[int, int], Array]
    alive: int

    @property
    def decisive(self) -> Grid:
        """The count that says more."""
        return min((self.agreed, self.held_out), key=lambda grid: grid.p_value())

    def p_value(self) -> float:
        """Twice the smaller of both counts' p-values."""
        return min(1.0, 2 * self.decisive.p_value())


def agreement(first: Stream, second: Stream, alignment: Alignment, rng: np.random.Generator) -> Agreement:
    """Match hidden units by each route alone, in every pair of layers, and count where routes agree.

    Routes are gate, up and down, or up and down; each is made orthogonal to the unit's routes before it, for rows
    of one unit are correlated and would agree in any basis. Up and down may change sign together behind a gate.
    UNITS units of LAYERS layers of the first, drawn with ``rng``, are looked for among all units of the second. Large
    layers are compared in SKETCH random combinations of the common coordinates, FEWER of the first's: the draw knows
    nothing of either file, so that less is seen but nothing more is found between strangers.

    Source: Zhu, Ahmed, Kuditipudi, Liang, "Independence Tests for Language Models", ICML 2025, arXiv 2502.12292
    (matching by gate and by up). Orthogonal routes, the third route, the route held out, the directions left out and
    the comparison with mismatched layers are ours.
    """
    large = first.large or second.large
    picked = np.sort(rng.permutation(len(first.blocks))[: FEWER if large else LAYERS])
    looked = [sampled(first.units(int(i)), UNITS, rng, large) for i in picked]
    turns = _sketched(alignment, rng) if large else (alignment.first, alignment.second)
    place = _combined if large else _turned
    mine = [place(first, int(i), turns[0], units) for i, units in zip(picked, looked, strict=True)]
    agreed, held = (np.zeros((len(picked), len(second.blocks)), dtype=np.int64) for _ in range(2))
    partners, seen = {}, False
    for column in range(len(second.blocks)):
        theirs = place(second, column, turns[1])
        seen |= bool(theirs[0].any())
        for row, own in enumerate(mine):
            tables = _tables(own, theirs)
            agreed[row, column], partners[row, column] = _agreeing([assigned(t, rng) for t in tables])
            held[row, column] = _held_out(tables, rng)
    units, routes = np.array([len(u) for u in looked]), len(mine[0])
    grids = Grid(agreed, units, comb(routes, 2), ALLOWANCE), Grid(held, units, routes, HELD_ALLOWANCE)
    alive = sum(int((own[0] != 0).any(axis=1).sum()) for own in mine) if seen else 0
    return Agreement(*grids, tuple(map(int, picked)), tuple(looked), partners, alive)


def _turned(stream: Stream, layer: int, turn: Array, wanted: Array | None = None) -> Rows:
    return tuple(rows @ turn for rows in orthogonalised(stream.rows(layer, wanted)))


def _combined(stream: Stream, layer: int, turn: Array, wanted: Array | None = None) -> Rows:
    """The same, made orthogonal in the coordinates that are left."""
    if wanted is None:
        return orthogonalised(stream.mapped(layer, turn))
    return orthogonalised(tuple(rows @ turn for rows in stream.rows(layer, wanted)))


def _sketched(alignment: Alignment, rng: np.random.Generator) -> tuple[Array, Array]:
    """Both maps, followed by the same SKETCH random combinations of the common coordinates."""
    if alignment.first.shape[1] <= SKETCH:
        return alignment.first, alignment.second
    mixed = rng.standard_normal((alignment.first.shape[1], SKETCH), np.float32)
    return alignment.first @ mixed, alignment.second @ mixed


def _tables(first: Rows, second: Rows) -> list[Array]:
    """Similarities (units, units) by each route, every row and then every column of mean 0 and deviation 1."""
    found = []
    for route, (mine, theirs) in enumerate(zip(first, second, strict=True)):
        table = mine @ theirs.T
        if len(first) > 2 and route > 0:
            table = np.abs(table)
        for axis in (1, 0):
            table = table - table.mean(axis=axis, keepdims=True)
            spread = table.std(axis=axis, keepdims=True)
            table /= np.where(spread > 0, spread, 1.0)
        found.append(table)
    return found


def assigned(table: Array, rng: np.random.Generator) -> Array:
    """The partner (units of the first,) of each row; where the table is large, one of a row's NEAREST columns.

    >>> assigned(np.array([[0.0, 1.0], [2.0, 1.5]]), np.random.default_rng(0)).tolist()
    [1, 0]
    """
    if table.size <= LARGEST:
        return matched(table, rng)
    some = np.unique(_nearest(table))
    found = matched(table[:, some], rng)
    return np.asarray(np.where(found >= 0, some[found], -1))


def _nearest(table: Array) -> Array:
    """The NEAREST best columns (units of the first, NEAREST) of each row."""
    left, lines, found = table.copy(), np.arange(len(table)), []
    for _ in range(min(NEAREST, table.shape[1])):
        found.append(left.argmax(axis=1))
        left[lines, found[-1]] = -np.inf
    return np.stack(found, axis=1)


def _agreeing(orders: Sequence[Array]) -> tuple[int, Array]:
    """Agreements over all pairs of routes, and the partner of each unit on which two routes agree."""
    count, partner = 0, np.full(len(orders[0]), -1, dtype=np.int64)
    for one, other in combinations(orders, 2):
        same = (one == other) & (one >= 0)
        count += int(same.sum())
        partner = np.where(same, one, partner)
    return count, partner


def _held_out(tables: Sequence[Array], rng: np.random.Generator) -> int:
    """Units whose partner by all other routes is among the TOP best of its row by the route left out, by turns."""
    total, count = np.sum(tables, axis=0), 0
    for table in tables:
        order = assigned(total - table, rng)
        met = np.flatnonzero(order >= 0)
        better = np.sum(table[met] >= table[met, order[met]][:, None], axis=1)
        count += int(np.sum(better <= max(1, int(TOP * table.shape[1]))))
    return count


@dataclass(frozen=True, eq=False)
class InPlace:
    """Routes of some units of corresponding layers, and of all of the second's, in coordinates as they are stored."""

    mine: tuple[Rows, ...]
    theirs: tuple[Rows, ...]
    signed: bool
    seed: int

    @property
    def most(self) -> int:
        """The largest count there can be."""
        return sum(len(rows[0]) * comb(len(rows), 2) for rows in self.mine)

    def count(self) -> int:
        """Agreements of routes over all corresponding layers."""
        rng = np.random.default_rng(self.seed)
        pairs = zip(self.mine, self.theirs, strict=True)
        return sum(_agreeing([assigned(t, rng) for t in _tables(a, b)])[0] for a, b in pairs)

    def turned(self, rng: np.random.Generator) -> "InPlace":
        """The same with the second's coordinates in a random order, and of random signs where no mean is taken out."""
        width = self.theirs[0][0].shape[1]
        order = rng.permutation(width)
        signs = rng.choice([-1.0, 1.0], width).astype(np.float32) if self.signed else np.ones(width, np.float32)
        return replace(self, theirs=tuple(tuple(rows[:, order] * signs for rows in routes) for routes in self.theirs))


def in_place(first: Stream, second: Stream, rng: np.random.Generator) -> InPlace:
    """Read FEW layers for the exact test of a stream that was left in place while units were re-ordered.

    Random orders and signs of the second's coordinates are a symmetry of training from a random initialisation, and so
    are those of SKETCH coordinates drawn with ``rng``, by which large layers are compared.
    """
    picked = [int(i) for i in np.sort(rng.permutation(len(first.blocks))[:FEW])]
    large = first.large or second.large
    looked = [sampled(first.units(i), UNITS, rng, large) for i in picked]
    some = np.arange(first.width) if not large else np.sort(rng.permutation(first.width)[:SKETCH])
    turn, place = np.zeros((first.width, len(some)), np.float32), _combined if large else _turned
    turn[some, np.arange(len(some))] = 1
    mine = tuple(place(first, i, turn, units) for i, units in zip(picked, looked, strict=True))
    theirs = tuple(place(second, i, turn) for i in picked)
    signed = not any(mlp.centred for stream in (first, second) for mlp in stream.roles.mlps)
    return InPlace(mine, theirs, signed, int(rng.integers(2**32)))


def ways(layers: Sequence[int]) -> float:
    """How many monotone alignments there are of so many layers with so many others; infinity beyond 1e300.

    >>> ways((4, 2)), ways((5000, 2500))
    (6.0, inf)
    """
    found = comb(max(layers), min(layers))
    return float(found) if found < 10**300 else inf


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
