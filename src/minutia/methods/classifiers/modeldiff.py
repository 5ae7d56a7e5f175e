"""ModelDiff: how far each adversarial twin is from its seed, in the suspect's own classes."""

from dataclasses import dataclass

import numpy as np

from minutia.core.answers import Answers
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.crafting import boxed, descend
from minutia.methods.classifiers.ensembles import natural_inputs
from minutia.methods.classifiers.relations import (
    FAR,
    Paired,
    apart,
    distances,
    members,
    off_by,
    parted,
    recipes,
    shown_twice,
    told_alike,
    whole,
)

BLUR = 0.1
"""Distances below this are no evidence, however alike the models at hand are."""


@dataclass(frozen=True)
class ModelDiff(Paired):
    """Pairs of a seed and its adversarial twin; score = cosine of the two models' decision distance vectors.

    H0: the suspect was trained without the owner's model. The decision distance vector holds for each pair
    1 - cos(g(x), g(x')): it has one entry per pair, not per class, so that label spaces may differ. From labels alone
    an entry is 1 where seed and twin are named differently. The twin starts at random within ``epsilon`` of the seed
    and follows signed gradients that push its logits along mean - Z(x): away from its seed, and from the other twins.
    Every pair costs two questions. Of ``oversample`` times as many pairs as wanted those are kept on which innocent
    models differ most from the owner and copies least, far and near twins in turn: a vector whose entries are all
    alike resembles every other such vector. An entry that was refused takes the value that is worst for the cosine.

    Source: Li, Zhang, Liu, Yang, Liu, "ModelDiff: Testing-Based DNN Similarity Comparison for Model Reuse Detection",
    ISSTA 2021, arXiv 2106.08890. They use epsilon 0.06 on larger images, keep all pairs and compare with references.

    >>> ModelDiff(pairs=40).key
    'model_diff(epsilon=0.15,oversample=6,pairs=40,rate=0.01,steps=50)@1'
    """

    name = "model_diff"
    source = "Li, Zhang, Liu, Yang, Liu, ISSTA 2021, arXiv 2106.08890"

    pairs: int = 60
    epsilon: float = 0.15
    rate: float = 0.01
    steps: int = 50
    oversample: int = 6

    def __post_init__(self) -> None:
        if self.pairs < 2 or self.oversample < 1 or self.steps < 1:
            raise UsageError(f"expected 2 or more pairs, oversample >= 1 and 1 or more steps, got {self}")
        if not 0 < self.epsilon <= 1 or not 0 < self.rate < np.inf:
            raise UsageError(f"expected epsilon in (0, 1] and a positive rate, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Craft twins, store, re-check, choose, far and near in turn."""
        assert isinstance(model, GradientModel)
        seeds = rng.permutation(np.unique(material.stored(natural_inputs(material)), axis=0))
        seeds = seeds[: self.pairs * self.oversample]
        twins = material.stored(self.craft(model, seeds, material.bounds, rng))
        points = np.stack([seeds, twins], axis=1).reshape(-1, *seeds.shape[1:])
        own = shown_twice([model], points)[0]
        fine = whole(own[0]) & _moved(seeds, twins)
        if fine.sum() < self.pairs:
            raise ModelError(
                f"expected {self.pairs} seeds with a twin that survives storage, got {fine.sum()}: "
                "give more data, a larger epsilon, or ask for fewer pairs"
            )
        innocents, copies, fitted = parted(material)
        worth = rng.random(len(seeds))
        if innocents:
            views, groups = off_by((innocents, copies), points, lambda seen, v: _off(own[v], seen)), recipes(innocents)
            worth = np.sum([apart(far, near, groups, BLUR) for far, near in views], axis=0)
        order = in_turn(np.where(fine, worth, -np.inf), distances(own[0]) >= FAR)[: self.pairs]
        return Enrolment(numbered(points[members(order)], {"channel": "array"}), {}, fitted)

    def craft(self, model: GradientModel, seeds: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
        """Twins (n, *shape) within ``epsilon`` of the seeds, their logits pushed along mean - Z(seed)."""
        low, high = bounds
        reach = self.epsilon * (high - low)
        logits, _ = model.linearise(seeds)
        along = logits.mean(axis=0) - logits
        starts = np.clip(seeds + rng.uniform(-reach, reach, seeds.shape), low, high)

        def near(at: Array, rows: Array) -> Array:
            return boxed(at, seeds[rows], reach, bounds)

        return descend(model, starts, lambda _, rows: -along[rows], near, self.rate * (high - low), self.steps)

    def likeness(self, fp: Fingerprint, number: Array, seen: Answers, upto: Array) -> Array:
        """The cosine at every look."""
        own, seen = told_alike(fp.answers.take(members(number)), seen)
        mine, other, known = distances(own), distances(seen), whole(seen)
        return np.array([least_cosine(mine[:n], other[:n], known[:n]) for n in upto])


def least_cosine(own: Array, seen: Array, known: Array) -> float:
    """Cosine of two vectors (p,) of numbers in [0, 1]; entries that are not known take the worst values.

    The cosine has no inner minimum in any entry of ``seen``, so the worst values are 0 and 1, and of so many ones the
    worst lie where ``own`` is smallest. A vector of zeros resembles nothing: 0.

    >>> least_cosine(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([True, True]))
    1.0
    >>> round(least_cosine(np.array([1.0, 0.0]), np.array([1.0, 0.0]), np.array([True, False])), 3)
    0.707
    """
    hidden = np.sort(own[~known])
    product = own[known] @ seen[known] + np.concatenate([[0.0], np.cumsum(hidden)])
    square = (own @ own) * (seen[known] @ seen[known] + np.arange(len(hidden) + 1))
    return float(np.min(np.where(square > 0, product / np.sqrt(np.where(square > 0, square, 1)), 0.0)))


def in_turn(worth: Array, far: Array) -> Array:
    """Rows by falling worth, far and near ones taking turns; rows of no worth at all are left out.

    >>> in_turn(np.array([3.0, 2.0, 1.0, -np.inf]), np.array([True, True, False, False])).tolist()
    [0, 2, 1]
    """
    order = [row for row in np.argsort(-worth, kind="stable") if worth[row] > -np.inf]
    turn = np.zeros(len(worth), dtype=int)
    for side in (True, False):
        mine = [row for row in order if far[row] == side]
        turn[mine] = np.arange(len(mine))
    return np.array(sorted(order, key=lambda row: turn[row]), dtype=int)


def _off(own: Answers, seen: Answers) -> Array:
    mine, other = told_alike(own, seen)
    return np.abs(distances(other) - distances(mine))


def _moved(seeds: Array, twins: Array) -> Array:
    return np.asarray((seeds != twins).reshape(len(seeds), -1).any(axis=1))
