"""Shared by methods whose score is the share of probes with the owner's label."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.fingerprint import Fingerprint
from minutia.core.method import Method


@dataclass(frozen=True)
class MatchRate(Method, ABC):
    """Score = matching rate MR = mean[g(x) = f(x)] over the asked probes; refused and invalid answers do not match."""

    h0 = "the suspect was trained without my model: it is one more model of the null's population"
    owner_needs = Access.LABELS
    suspect_needs = Access.LABELS

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """Matching rate on exactly what was asked."""
        return float(self.path(fp, observation, [observation.asked])[0])

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """Matching rate at every look, by one running mean over the longest prefix."""
        longest = prefixes[-1] if prefixes else ()
        own = dict(zip(fp.probes.ids, fp.answers.labels, strict=True))
        same = observation.labels_of(longest) == [own[i] for i in longest]
        running = np.cumsum(same) / np.arange(1, len(longest) + 1)
        return running[[len(p) - 1 for p in prefixes]]

    def asked_for_floor(self, sizes: Array) -> Array:
        """A rate over n points varies at least binomially."""
        return sizes


def matches(labels: Sequence[Array], own: Array) -> Array:
    """Which models (rows) match the owner on which probes (columns).

    >>> matches([np.array([1, 2])], np.array([1, 3])).tolist()
    [[True, False]]
    """
    return np.stack([np.asarray(row) == own for row in labels]) if labels else np.zeros((0, len(own)), bool)


def bits_per_probe(copies: Array, innocents: Array) -> Array:
    """Evidence per query in bits: KL of the copies' match rate against the innocents', add-half smoothed.

    ``copies`` (a, n) and ``innocents`` (b, n) are match matrices; source: rule E6 of the evidence notes.

    >>> bits_per_probe(np.ones((8, 1), bool), np.zeros((20, 1), bool)).round(2).tolist()
    [4.78]
    """
    p = (copies.sum(axis=0) + 0.5) / (len(copies) + 1)
    q = (innocents.sum(axis=0) + 0.5) / (len(innocents) + 1)
    bits = p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))
    return np.where(p > q, bits, -bits)
