"""Data use: whether a model was trained with the owner's inputs, which is another question than whose model it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minutia.core.answers import Answers, Observation
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.stepwise import Stepwise, rows_of
from minutia.stats.nulls import Significance

FLIPS = 9999
"""Relabellings drawn besides the true one: no p-value falls below one in ten thousand."""
SEED = 2104
"""The relabellings are the same for every fingerprint, so that a verdict can be computed again."""
LEAST = 1e-3
"""Probabilities of the true label below this count as this: one point that went wrong must not carry the sum."""
STEP = 0.15
"""Deviation of the noise of each further view, in units of the input range."""


@dataclass(frozen=True)
class DataUse(Stepwise):
    """Training inputs that fare better with the suspect than inputs which chance alone has held out.

    H0: the suspect was trained without the owner's training inputs. It is not about the owner's model: an honest model
    of the same data fires, and a copy of the model may not. Points are taken in pairs of one class, one from the
    owner's training inputs and one from ``Material.held_out``; each is asked as it is and in ``views`` - 1 versions
    under growing noise. A point's feature is the mean log probability of its true label, clipped; of labels alone, the
    share of its views with the true label, a walk's length. Under H0 both points of a pair may be swapped, **provided
    that the owner drew at random what he trained on**: the p-value counts the relabellings of all pairs for which the
    sum of differences is as large, and needs no null models. Fixed splits that were not drawn make it worthless.

    Looks share alpha by the squares of their sizes. The owner's own model is the positive control: a model that fits
    held-out points as well as its own cannot be used, and the verdict is inconclusive.

    Source: the question and label-only walks of Maini, Yaghini, Papernot, "Dataset Inference", ICLR 2021, arXiv
    2104.10706, under the objection of Szyller, Zhang, Liu, Asokan, TMLR 2023, arXiv 2210.13631. Other than there, the
    feature is a loss and not a regressor's output, which would have to be fitted on the points under test, each point
    counts once, and the test is Fisher's randomisation test (The Design of Experiments, 1935).

    >>> DataUse(pairs=100).key
    'data_use(pairs=100,views=1)@1'
    """

    name = "data_use"
    question = "data-use"
    h0 = "the suspect was trained without my training inputs"
    source = "Maini, Yaghini, Papernot, ICLR 2021, arXiv 2104.10706"
    is_exact = True
    serves = frozenset({"image", "tabular"})

    pairs: int = 400
    views: int = 1

    def __post_init__(self) -> None:
        if self.pairs < 8 or not 1 <= self.views <= 20:
            raise UsageError(f"expected 8 or more pairs and 1 to 20 views of each point, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Pair points by class, in random order; all views of a pair are asked in a row."""
        if material.held_out is None:
            raise UsageError("expected held-out inputs to compare training inputs with, got none: give data with them")
        members, others = _paired(material, rng)
        if len(members) < 8:
            raise UsageError(
                f"expected 8 or more pairs of a training and a held-out input of one class, got {len(members)}: "
                "give more data of each class"
            )
        members, others = members[: self.pairs], others[: self.pairs]
        points = np.stack([material.inputs[members], material.held_out[0][others]], axis=1)
        views = _views(points, self.views, material, rng)
        truth = np.repeat(np.asarray(material.labels)[members], 2 * self.views).astype(np.int64)
        probes = numbered(views.reshape(-1, *material.inputs.shape[1:]), {"channel": "array"})
        return Enrolment(probes, {"truth": truth})

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """Minus the decimal logarithm of every look's own p-value.

        Pairs of which something was lost or is not asked yet are left out.
        """
        longest = prefixes[-1] if prefixes else ()
        rows = rows_of(fp, longest)
        gaps, ends = self._gaps(fp, rows, observation.only(longest).answers)
        arrived = [int(np.searchsorted(ends, len(p), side="right")) for p in prefixes]
        return np.array([-np.log10(swapped_p(gaps[:n])) for n in arrived])

    def exact(self, fp: Fingerprint, path: Array, sizes: Array) -> Significance | None:
        """The smallest p-value over the looks, each divided by its share of alpha."""
        shares = sizes.astype(float) ** 2 / float(np.sum(np.square(fp.schedule, dtype=float)))
        floor = min(1.0, float(np.min(1 / (1 + FLIPS) / shares)))
        return Significance(max(floor, min(1.0, float(np.min(10.0**-path / shares)))), floor, "exact")

    def _gaps(self, fp: Fingerprint, rows: Array, answers: Answers) -> tuple[Array, Array]:
        """Feature of the training input minus that of the held-out one per whole pair, and where each pair ends."""
        per_pair = 2 * self.views
        pair, member = rows // per_pair, rows % per_pair < self.views
        told = _told(answers, fp.arrays["truth"][rows], member)
        whole = np.bincount(pair) == per_pair
        signed = np.bincount(pair, np.where(member, told, -told) / self.views)
        ends = np.zeros(len(whole), dtype=int)
        ends[pair] = np.arange(1, len(rows) + 1)
        return signed[whole], ends[whole]


def swapped_p(gaps: Array) -> float:
    """Exact p-value of gaps (n,): how often their sum is as large when each sign is drawn anew.

    H0: both points of every pair are exchangeable. The true signs are one of the relabellings, hence the +1.

    Source: Fisher, The Design of Experiments, 1935; Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9(1), 2010.

    >>> swapped_p(np.ones(40)), swapped_p(np.zeros(40))
    (0.0001, 1.0)
    """
    # A relabelling's sum is as large exactly where what it flips adds up to 0 or less.
    flipped = _flips(len(gaps)) @ gaps
    return float(1 + np.sum(flipped <= 1e-9 * np.abs(gaps).sum())) / (1 + FLIPS)


@lru_cache(maxsize=64)
def _flips(count: int) -> Array:
    return np.random.default_rng(SEED).integers(0, 2, (FLIPS, count)).astype(np.float32)


def _paired(material: Material, rng: np.random.Generator) -> tuple[Array, Array]:
    """Rows of training and of held-out inputs (n,), pairs of one class in random order."""
    assert material.held_out is not None
    sides = np.asarray(material.labels), np.asarray(material.held_out[1])
    found = []
    for label in np.intersect1d(*sides):
        first, second = (rng.permutation(np.flatnonzero(side == label)) for side in sides)
        found.append(np.stack([first[: len(second)], second[: len(first)]]))
    both = np.concatenate(found, axis=1) if found else np.empty((2, 0), int)
    members, others = both[:, rng.permutation(both.shape[1])]
    return members, others


def _views(points: Array, views: int, material: Material, rng: np.random.Generator) -> Array:
    """Points (n, 2, *shape) as they are and under growing noise: (n, 2, views, *shape)."""
    low, high = material.bounds
    made = [points + rng.normal(0, 1, points.shape) * STEP * (high - low) * step for step in range(views)]
    return material.stored(np.stack(made, axis=2))


def _told(answers: Answers, truth: Array, member: Array) -> Array:
    """Per probe, from 0 (certain and wrong) to 1 (certain and right); no answer counts against the accuser."""
    if answers.scores is None:
        found = (answers.labels == truth).astype(float)
    else:
        classes = answers.scores.shape[1]
        given = answers.probabilities(classes)[np.arange(len(truth)), np.minimum(truth, classes - 1)]
        found = 1 - np.log(np.clip(np.where(truth < classes, given, 0), LEAST, 1)) / np.log(LEAST)
    return np.where(answers.labels >= 0, found, np.where(member, 0.0, 1.0))
