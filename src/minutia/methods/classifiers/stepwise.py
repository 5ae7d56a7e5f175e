"""Shared by methods that score all looks at once: which rows were asked, and how much a score varies at each look."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.fingerprint import Fingerprint
from minutia.core.method import Method
from minutia.stats.sequential import Standardiser

RHO = 0.05
"""Correlation of one innocent model's matches: what they vary by however many points are asked."""


@dataclass(frozen=True)
class Stepwise(Method, ABC):
    """A method whose score of what was asked is the last of its path."""

    h0 = "the suspect was trained without my model: it is one more model of the null's population"
    owner_needs = Access.LABELS
    suspect_needs = Access.LABELS

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """The score of exactly what was asked."""
        return float(self.path(fp, observation, [observation.asked])[0])

    @abstractmethod
    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """Scores (looks,) of growing prefixes of the asked probes."""


def rows_of(fp: Fingerprint, asked: Sequence[str]) -> Array:
    """The rows (n,) of a fingerprint's probes that were asked, in the order of asking."""
    place = {name: row for row, name in enumerate(fp.probes.ids)}
    return np.array([place[name] for name in asked], dtype=int)


def rate_scale(spent: Array, counts: Array) -> Standardiser:
    """Declared variance q(1-q)(1/n + RHO) of a rate over ``counts`` (looks,), q being the spent models' in the end.

    >>> rate_scale(np.array([[0.0, 0.5]]), np.array([10, 20])).mean.tolist()
    [0.5, 0.5]
    """
    q = (spent[:, -1].sum() + 0.5) / (len(spent) + 1)
    return Standardiser(np.full(len(counts), q), np.sqrt(q * (1 - q) * (1 / counts + RHO)))


def steadied(spent: Array, growth: Array, least: float) -> Standardiser:
    """The spent models' mean at every look, and their deviation at full length, ``least`` or more, times ``growth``.

    Few spent models that happen to agree for six probes would set a bar that innocents pass by luck.

    >>> steadied(np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([2.0, 1.0]), 0.1).sd.round(2).tolist()
    [2.83, 1.41]
    """
    return Standardiser(spent.mean(axis=0), max(float(spent[:, -1].std(ddof=1)), least) * growth)


def mean_growth(sizes: Array) -> Array:
    """How much more a mean over the first answers (looks,) varies than that over all of them.

    >>> mean_growth(np.array([10, 20])).round(2).tolist()
    [1.22, 1.0]
    """
    return np.asarray(np.sqrt((1 / sizes + RHO) / (1 / sizes[-1] + RHO)))
