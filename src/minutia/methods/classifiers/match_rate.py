"""Shared by methods whose score is the share of probes with the owner's label."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.answers import Answers, Observation
from minutia.core.digest import Array
from minutia.core.fingerprint import Fingerprint
from minutia.core.model import Model
from minutia.core.probe import ProbeSet
from minutia.methods.classifiers.stepwise import Stepwise, rate_scale, rows_of
from minutia.stats.sequential import Standardiser


@dataclass(frozen=True)
class MatchRate(Stepwise, ABC):
    """Score = matching rate MR = mean[g(x) = f(x)] over the asked probes; refused and invalid answers do not match."""

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """Matching rate at every look, by one running mean over the longest prefix."""
        longest = prefixes[-1] if prefixes else ()
        labels = observation.labels_of(longest)
        same = (labels == fp.answers.labels[rows_of(fp, longest)]) & (labels >= 0)
        running = np.cumsum(same) / np.arange(1, len(longest) + 1)
        return running[[len(p) - 1 for p in prefixes]]

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """Declared variance of a rate over so many points, in place of the spent models' own.

        The spent models screened and ordered the probes, so their own early looks are far too quiet to be a scale:
        the first innocent who is lucky for six probes would set a bar that a perfect copy never reaches.
        """
        return rate_scale(spent, sizes)


def matched(models: Sequence[Model], probes: ProbeSet, own: Array) -> Array:
    """Which models (rows) answer the owner's label to which probes (columns).

    >>> matched([], ProbeSet(("a",), np.zeros((1, 2))), np.array([0])).shape
    (0, 1)
    """
    return np.array([model.ask(probes).labels == own for model in models]).reshape(len(models), len(own))


def confidence(models: Sequence[Model], probes: ProbeSet, own: Array) -> Array:
    """The score that each model (row) gives to the owner's label of each probe (column); without scores, a match.

    >>> confidence([], ProbeSet(("a",), np.zeros((1, 2))), np.array([0])).shape
    (0, 1)
    """
    rows = [_given(model.ask(probes), own) for model in models]
    return np.array(rows, dtype=float).reshape(len(models), len(own))


def _given(answers: Answers, own: Array) -> Array:
    if answers.scores is None or answers.scores.shape[1] <= own.max():  # it does not know all of the owner's classes
        return answers.labels == own
    return np.nan_to_num(answers.scores[np.arange(len(own)), own])


def bits_per_probe(copies: Array, innocents: Array) -> Array:
    """Evidence per query in bits: KL of the copies' match rate against the innocents', add-half smoothed.

    ``copies`` (a, n) and ``innocents`` (b, n) are match indicators or probabilities of a match.

    Source: Kullback and Leibler, Annals of Mathematical Statistics 22, 1951.

    >>> bits_per_probe(np.ones((8, 1)), np.zeros((20, 1))).round(2).tolist()
    [4.79]
    """
    p = (copies.sum(axis=0) + 0.5) / (len(copies) + 1)
    q = (innocents.sum(axis=0) + 0.5) / (len(innocents) + 1)
    bits = p * np.log2(p / q) + (1 - p) * np.log2((1 - p) / (1 - q))
    return np.where(p > q, bits, -bits)
