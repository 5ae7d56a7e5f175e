"""Shared by methods whose probes are judged in groups: trajectories, composites."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.fingerprint import Fingerprint
from minutia.methods.classifiers.match_rate import MatchRate
from minutia.methods.classifiers.stepwise import rows_of
from minutia.stats.sequential import Standardiser

GROUP = "group"
"""Array of a fingerprint: which group each probe (n,) belongs to, 0, 0, …, 1, 1, …, in the order of asking."""


@dataclass(frozen=True)
class GroupRate(MatchRate, ABC):
    """Score = mean worth of the groups that were asked to their end; before the first one is, of what there is of it.

    A group's worth follows from the share of its answers that match. So a look in the middle of a group says what the
    look at its beginning said.
    """

    @property
    @abstractmethod
    def size(self) -> int:
        """Probes per group."""

    @abstractmethod
    def worth(self, fp: Fingerprint, shares: Array, groups: Array) -> Array:
        """What groups (g,) say whose matches are these shares (g,): 0 to 1, growing with the share."""

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """Mean worth of the groups that are finished at every look."""
        longest = prefixes[-1] if prefixes else ()
        rows = rows_of(fp, longest)
        labels = observation.labels_of(longest)
        same = (labels == fp.answers.labels[rows]) & (labels >= 0)
        return np.array([self._mean(fp, rows[: len(p)], same[: len(p)]) for p in prefixes])

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """Declared variance as of a matching rate, with groups in place of probes: those of one group hang together."""
        return super().scale(spent, np.maximum(sizes // self.size, 1))

    def _mean(self, fp: Fingerprint, rows: Array, same: Array) -> float:
        group = fp.arrays[GROUP]
        mine = group[rows]
        asked, hits = np.bincount(mine), np.bincount(mine, same)
        last = rows[-1]
        if last + 1 < len(group) and group[last + 1] == group[last] and mine[0] != mine[-1]:
            asked[mine[-1]] = 0
        groups = np.flatnonzero(asked)
        return float(self.worth(fp, hits[groups] / asked[groups], groups).mean())
