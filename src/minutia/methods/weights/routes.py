"""Routes: the weights by which hidden units of two networks are matched, and whether several of them agree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from minutia.core.digest import Array
from minutia.methods.weights.links import OUTSIDE, Links
from minutia.stats.matching import Order, cosines, matched

SHUFFLE = 20251
"""Seed of the shuffles that break ties and part the units: the same for everybody, so that scores are pure."""
FOLDS = 4
"""Parts of a group, each of which is matched by readers that were matched without it."""
DEAD = 1e-6
"""Length of weights, relative to the longest of a group, below which a unit is dead."""
Tables = tuple[Array, Array]
"""The same weights of my network and of the other."""


@dataclass(frozen=True, eq=False)
class Partners:
    """For each of my units its partner's place, -1 for none, and the sign (n,) between the two."""

    order: Order
    signs: Array

    def without(self, units: Array) -> "Partners":
        """The same with some units (n,) left out."""
        return Partners(np.where(units, -1, self.order), self.signs)


@dataclass(frozen=True, eq=False)
class Matching:
    """Two networks whose units were matched from the input on, group by group, by their incoming weights.

    The inputs of each group are first put into the order that was found for the groups before. It ends where the
    architectures differ: groups that cannot be compared are left out.
    """

    mine: Links
    theirs: Links
    partners: Mapping[int, Partners]

    @classmethod
    def of(cls, mine: Links, theirs: Links) -> Self:
        """Match group by group; only weights that make units are looked at, and none that reads the last ones."""
        rng, known = np.random.default_rng(SHUFFLE), dict[int, Partners]()
        for group in mine.order:
            found = cls(mine, theirs, known)._by_input(group, known, rng)
            if found is None:
                break
            known[group] = found
        return cls(mine, theirs, known)

    def orders(self) -> list[tuple[Order, int]]:
        """For each group that was compared the partners' places, and how many units the other network has."""
        return [(found.order, self._units(group)) for group, found in self.partners.items()]

    def agreement(self) -> tuple[int, int]:
        """How many units are matched alike by two routes that share no weight, and how many were compared.

        The one route is what makes a unit, the other what reads it: other hidden units, themselves matched without
        its help. Of groups that only the output reads, the two routes are two halves of what makes them. What reads
        the last group is never looked at: classes have names, by which independent networks are matched as well.
        """
        rng = np.random.default_rng(SHUFFLE)
        found = [self._agreeing(group, rng) for group in self.partners]
        return sum(same for same, _ in found), sum(compared for _, compared in found)

    def _agreeing(self, group: int, rng: np.random.Generator) -> tuple[int, int]:
        readers = {self.mine.links[i].target for i in self.mine.out_of(group)} & set(self.partners)
        return self._read(group, sorted(readers), rng) if readers else self._halved(group, rng)

    def _read(self, group: int, readers: Sequence[int], rng: np.random.Generator) -> tuple[int, int]:
        """Compare with the route through the readers, each of which is matched without the units in question."""
        own = self.partners[group]
        places = rng.permutation(np.flatnonzero(own.order >= 0))
        same = compared = 0
        for fold in range(FOLDS):
            held = np.isin(np.arange(len(own.order)), places[fold::FOLDS])
            known = {**self.partners, group: own.without(held)}
            tables = [self._columns(group, r, self._by_input(r, known, rng)) for r in readers]
            found = self._matched(group, tables, rng, held)
            if found is not None:
                same += int(np.sum(held & (found.order == own.order)))
                compared += int(held.sum())
        return same, compared

    def _halved(self, group: int, rng: np.random.Generator) -> tuple[int, int]:
        """Compare two matchings, each by half of the hidden units that make the group."""
        sources = {self.mine.links[i].source for i in self.mine.into(group, tuple(self.partners))}
        if not sources:
            return 0, 0
        parts = {s: rng.permutation(len(self.partners[s].order)) % 2 > 0 for s in sources}
        halves = []
        for half in (True, False):
            known = {s: self.partners[s].without(parts[s] == half) for s in sources}
            halves.append(self._by_input(group, known, rng, outside=False))
        first, second = halves
        if first is None or second is None:
            return 0, 0
        both = (first.order >= 0) & (second.order >= 0)
        return int(np.sum(both & (first.order == second.order))), int(both.sum())

    def _by_input(
        self, group: int, known: Mapping[int, Partners], rng: np.random.Generator, *, outside: bool = True
    ) -> Partners | None:
        """Match a group by what makes it: the input, and hidden units whose partners are known."""
        tables: list[Tables | None] = []
        for source in (*((OUTSIDE,) if outside else ()), *known):
            pairs = self._pairs(source, group)
            tables += [None if pair is None else self._rows(pair, known.get(source)) for pair in pairs]
        return self._matched(group, tables, rng) if tables else None

    def _rows(self, pair: Tables, sources: Partners | None) -> Tables:
        """Incoming weights (units, everything) of both networks, those that come from partners side by side."""
        first, second = pair
        if sources is not None:
            met = np.flatnonzero(sources.order >= 0)
            first, second = first[:, met], second[:, sources.order[met]] * sources.signs[None, met, None]
        return first.reshape(len(first), -1), second.reshape(len(second), -1)

    def _columns(self, group: int, reader: int, known: Partners | None) -> Tables | None:
        """Outgoing weights (units, everything) of both networks, those to partners side by side."""
        pairs = self._pairs(group, reader)
        if known is None or None in pairs:
            return None
        met = np.flatnonzero(known.order >= 0)
        sides = []
        for pair in pairs:
            assert pair is not None
            first, second = pair
            second = second[known.order[met]] * known.signs[met, None, None]
            sides.append([np.moveaxis(t, 1, 0).reshape(t.shape[1], -1) for t in (first[met], second)])
        mine, theirs = zip(*sides, strict=True)
        return np.concatenate(mine, axis=1), np.concatenate(theirs, axis=1)

    def _matched(
        self, group: int, tables: Sequence[Tables | None], rng: np.random.Generator, some: Array | None = None
    ) -> Partners | None:
        """Match units by rows of weights (units, everything); of mine only ``some``. None where widths do not fit."""
        fitting = [t for t in tables if t is not None]
        if not fitting or len(fitting) < len(tables):
            return None
        first, second = (np.concatenate(side, axis=1) for side in zip(*fitting, strict=True))
        similar = cosines(first, second)
        own = np.flatnonzero(_alive(first) & (True if some is None else some))
        other = np.flatnonzero(_alive(second))
        straight = self.mine.straight[group]
        found = matched((similar if straight else np.abs(similar))[np.ix_(own, other)], rng)
        order = np.full(len(first), -1, dtype=np.int64)
        order[own[found >= 0]] = other[found[found >= 0]]
        signs = np.ones(len(first)) if straight else np.sign(similar[np.arange(len(first)), order])
        return Partners(order, signs)

    def _pairs(self, source: int, target: int) -> list[Tables | None]:
        """My links between two groups, each with its counterpart; None for one whose shape does not fit."""
        mine, theirs = (
            [link.weights for link in net.links if (link.source, link.target) == (source, target)]
            for net in (self.mine, self.theirs)
        )
        if len(mine) != len(theirs):
            return [None] * len(mine)
        return [(a, b) if a.shape[2] == b.shape[2] else None for a, b in zip(mine, theirs, strict=True)]

    def _units(self, group: int) -> int:
        """How many units a group of the other network has."""
        return next(len(link.weights) for link in self.theirs.links if link.target == group)


def _alive(rows: Array) -> Array:
    """Which units have weights at all; pruned ones have none, and would all be alike."""
    size = np.linalg.norm(rows, axis=1)
    return np.asarray(size > DEAD * size.max(initial=0.0))
