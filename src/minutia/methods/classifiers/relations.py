"""Shared by methods that compare relations between a model's own answers: other label spaces are no obstacle."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.digest import Array
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.model import Model
from minutia.methods.classifiers.ensembles import GROUP, answered, roots, rows_by_recipe
from minutia.methods.classifiers.stepwise import Stepwise, rows_of, steadied
from minutia.stats.sequential import Standardiser

LEAST_SPREAD = 1e-3
"""Smallest deviation of a score among spent models that is believed."""
FAR = 0.5
"""A decision distance from which on the two answers to a pair count as far from each other."""


@dataclass(frozen=True)
class Relation(Stepwise, ABC):
    """A score of relations between answers to different probes: what the classes are called, and how many, is open."""

    other_classes = True

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """The spent models' deviation at full length, larger at early looks as 1/sqrt(n)."""
        if len(spent) < 2:
            return super().scale(spent, sizes)
        return steadied(spent, np.sqrt(sizes[-1] / sizes), LEAST_SPREAD)


@dataclass(frozen=True)
class Paired(Relation, ABC):
    """A relation of the two answers to each pair of probes: one natural, the other moved by the owner's gradients."""

    owner_needs = Access.LABELS | Access.SCORES | Access.GRADIENTS
    serves = frozenset({"image", "tabular"})  # inputs move continuously; numbers of tokens are names

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The likeness at every look, over the pairs that are whole by then."""
        asked = observation.only(prefixes[-1] if prefixes else ())
        found, number = pairs(fp, asked)
        seen = asked.answers.take(np.stack([found.first, found.second], axis=1).ravel())
        return self.likeness(fp, number, seen, np.array([found.within(len(p)) for p in prefixes], dtype=int))

    @abstractmethod
    def likeness(self, fp: Fingerprint, number: Array, seen: Answers, upto: Array) -> Array:
        """Likeness (looks,) of the first ``upto`` (looks,) pairs; ``seen`` (2p,) answers the pairs ``number`` (p,)."""


def directions(answers: Answers) -> Array:
    """Probabilities (n, classes) as unit vectors over the model's own classes; of labels alone, one-hot.

    The product of two rows is the cosine of two outputs, whatever the classes are called. Without an answer: zeros.

    >>> directions(Answers.from_scores(np.array([[3.0, 4.0]]) / 7)).round(1).tolist()
    [[0.6, 0.8]]
    """
    classes = max(2, int(answers.labels.max(initial=0)) + 1) if answers.scores is None else answers.scores.shape[1]
    found = np.clip(answers.probabilities(classes), 0, None)
    length = np.linalg.norm(found, axis=1, keepdims=True)
    known = (answers.status == Status.OK)[:, None] & (length > 0)
    return np.asarray(np.where(known, found / np.where(length > 0, length, 1), 0.0))


def told_alike(own: Answers, seen: Answers) -> tuple[Answers, Answers]:
    """Both sides' answers (n), the owner's told row by row as much as the suspect tells: so many scores, or labels.

    >>> own = Answers.from_scores(np.array([[0.5, 0.3, 0.2]]))
    >>> told_alike(own, own.showing(1))[0].scores.tolist()
    [[0.5, nan, nan]]
    >>> told_alike(own, own.showing(0))[0].scores is None
    True
    """
    if own.scores is None or seen.scores is None:
        return own.showing(0), seen.showing(0)
    told = np.where(seen.status == Status.OK, np.isfinite(seen.scores).sum(axis=1), own.scores.shape[1])
    scores = own.scores.copy()
    for most in np.unique(told):
        rows = np.flatnonzero(told == most)
        shown = own.take(rows).showing(max(1, int(most))).scores
        scores[rows] = np.nan if shown is None else shown
    return Answers(own.status, own.labels, scores), seen


def both(fp: Fingerprint, seen: Observation) -> tuple[Answers, Answers]:
    """The owner's and the suspect's answers to what was asked, told alike."""
    return told_alike(fp.answers.take(rows_of(fp, seen.asked)), seen.answers)


class Pairs(NamedTuple):
    """Pairs of probes of which both were asked: their rows (p,) in the observation, and when each was whole (p,)."""

    first: Array
    second: Array
    whole: Array

    def within(self, asked: int) -> int:
        """How many pairs are whole after so many questions."""
        return int(np.searchsorted(self.whole, asked, side="right"))


def pairs(fp: Fingerprint, seen: Observation) -> tuple[Pairs, Array]:
    """Pairs that were asked whole, in the order in which they were, with their numbers (p,): probes 2i and 2i + 1."""
    asked = {name: row for row, name in enumerate(seen.asked)}
    rows = np.array([asked.get(name, -1) for name in fp.probes.ids]).reshape(-1, 2)
    number = np.flatnonzero((rows >= 0).all(axis=1))
    number = number[np.argsort(rows[number].max(axis=1), kind="stable")]
    first, second = rows[number].T
    return Pairs(first, second, np.maximum(first, second) + 1), number


def members(number: Array) -> Array:
    """The rows (2p,) of the pairs with these numbers (p,).

    >>> members(np.array([3, 0])).tolist()
    [6, 7, 0, 1]
    """
    return np.stack([2 * number, 2 * number + 1], axis=1).ravel()


def whole(answers: Answers) -> Array:
    """Whether both of each pair (p,) were answered, of answers to pairs in a row (2p,)."""
    return np.asarray((answers.status == Status.OK).reshape(-1, 2).all(axis=1))


def distances(answers: Answers) -> Array:
    """Decision distances 1 - cos (p,) of answers to p pairs in a row, (2p,).

    >>> distances(Answers.from_labels(np.array([3, 3, 0, 1]))).tolist()
    [0.0, 1.0]
    """
    outputs = directions(answers)
    return np.asarray(1 - (outputs[::2] * outputs[1::2]).sum(axis=1))


def parted(material: Material) -> tuple[list[Model], list[Model], frozenset[str]]:
    """Innocent models and copies to choose probes with, and the roots of the innocent ones.

    Every fourth innocent model only sets the scale. Of fewer than 4 all do, and nothing is chosen.
    """
    if material.screening is None and len(roots(material.unrelated)) < 4:
        return [], [], frozenset()
    fit, _ = material.parted()
    return list(fit.unrelated), [*fit.derived, *fit.surrogates], roots(fit.unrelated)


def shown_twice(models: Sequence[Model], points: Array) -> list[tuple[Answers, Answers]]:
    """What each model answers to the candidates: everything it tells, and the label alone."""
    told = [answered(model, points) for model in models]
    return [(answers, answers.showing(0)) for answers in told]


def off_by(sides: Sequence[Sequence[Model]], points: Array, off: Callable[[Answers, int], Array]) -> list[list[Array]]:
    """What ``off`` makes of models' answers to pairs (p,): for both views of ``shown_twice``, both sides (m, p)."""
    seen = [shown_twice(models, points) for models in sides]
    return [
        [np.array([off(told[view], view) for told in some]).reshape(len(some), len(points) // 2) for some in seen]
        for view in (0, 1)
    ]


def recipes(models: Sequence[Model]) -> list[Array]:
    """Rows of the models of each recipe that has enough of them; all as one group if none has."""
    return [np.array(rows) for rows in rows_by_recipe(models) if len(rows) >= GROUP] or [np.arange(len(models))]


def apart(innocents: Array, copies: Array, groups: Sequence[Array], blur: float) -> Array:
    """How many deviations further from the owner innocents are than copies (n,), for the recipe that is nearest.

    ``innocents`` (a, n) and ``copies`` (b, n) are distances from the owner; without copies the owner himself is one.
    ``blur`` is added to the deviations: few models that agree by luck are no measure of others.

    >>> apart(np.array([[1.0, 0.0], [1.0, 0.0]]), np.empty((0, 2)), [np.arange(2)], 0.5).tolist()
    [2.0, 0.0]
    """
    near = copies if len(copies) else np.zeros((1, innocents.shape[1]))
    spread = near.var(axis=0) + blur**2
    sides = [innocents[rows] for rows in groups]
    found = [(far.mean(axis=0) - near.mean(axis=0)) / np.sqrt(far.var(axis=0) + spread) for far in sides]
    return np.asarray(np.min(found, axis=0))
