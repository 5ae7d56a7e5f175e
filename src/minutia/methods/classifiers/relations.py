"""Shared by methods that compare relations between a model's own answers: other label spaces are no obstacle."""

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation, Status
from minutia.core.digest import Array
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Method
from minutia.core.model import GradientModel, Model
from minutia.methods.classifiers.ensembles import answered
from minutia.stats.sequential import Standardiser

GROUP = 4
"""Innocent models of one recipe that are told apart from the others; fewer say nothing by themselves."""
LEAST_SPREAD = 1e-3
"""Smallest deviation of a score among spent models that is believed."""


@dataclass(frozen=True)
class Relation(Method, ABC):
    """A score of relations between answers to different probes: what the classes are called, and how many, is open."""

    h0 = "the suspect was trained without my model: it is one more model of the null's population"
    owner_needs = Access.LABELS
    suspect_needs = Access.LABELS
    other_classes = True

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """The likeness on exactly what was asked."""
        return float(self.path(fp, observation, [observation.asked])[0])

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """The spent models' mean at every look and their deviation at full length, larger at early looks as 1/sqrt(n).

        Few spent models that happen to agree for six probes would set a bar that innocents pass by luck.
        """
        if len(spent) < 2:
            return super().scale(spent, sizes)
        spread = max(float(spent[:, -1].std(ddof=1)), LEAST_SPREAD)
        return Standardiser(spent.mean(axis=0), spread * np.sqrt(sizes[-1] / sizes))


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
    place = {name: row for row, name in enumerate(fp.probes.ids)}
    return told_alike(fp.answers.take([place[i] for i in seen.asked]), seen.answers)


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


def parted(material: Material) -> tuple[list[Model], list[Model], frozenset[str]]:
    """Innocent models and copies to choose probes with, and the roots of the innocent ones.

    Every fourth innocent model only sets the scale. Of fewer than 4 all do, and nothing is chosen.
    """
    if material.screening is None and len({m.card.root for m in material.unrelated}) < 4:
        return [], [], frozenset()
    fit, _ = material.parted()
    return list(fit.unrelated), [*fit.derived, *fit.surrogates], frozenset(m.card.root for m in fit.unrelated)


def shown_twice(models: Sequence[Model], points: Array) -> list[tuple[Answers, Answers]]:
    """What each model answers to the candidates: everything it tells, and the label alone."""
    told = [answered(model, points) for model in models]
    return [(answers, answers.showing(0)) for answers in told]


def recipes(models: Sequence[Model]) -> list[Array]:
    """Rows of the models of each recipe that has enough of them; all as one group if none has."""
    names = np.array([m.card.recipe for m in models])
    groups = [np.flatnonzero(names == name) for name in dict.fromkeys(names)]
    return [rows for rows in groups if len(rows) >= GROUP] or [np.arange(len(models))]


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


def descend(
    model: GradientModel,
    starts: Array,
    slope: Callable[[Array, Array], Array],
    near: Callable[[Array, Array], Array],
    rate: float,
    steps: int,
) -> Array:
    """Signed gradient steps of all rows at a time, projected by ``near(points, rows)``; a row without slope is done.

    ``slope(logits, rows)`` is d(loss)/d(logits) (k, classes) of the rows (k,) that are still going.

    Source: Madry, Makelov, Schmidt, Tsipras, Vladu, ICLR 2018, arXiv 1706.06083.
    """
    at, going = np.array(starts, dtype=np.float32), np.arange(len(starts))
    for _ in range(steps):
        logits, pull_back = model.linearise(at[going])
        push = slope(logits.astype(np.float64), going)
        moved = near(at[going] - rate * np.sign(pull_back(push.astype(np.float32))), going)
        still = push.any(axis=1)
        at[going[still]] = moved[still]
        going = going[still]
        if not len(going):
            break
    return at
