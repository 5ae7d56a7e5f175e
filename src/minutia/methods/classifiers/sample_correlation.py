"""SAC: how the answers to different inputs relate to one another, whatever the classes are called."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.answers import Answers, Observation, Status
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.ensembles import answered, natural_inputs
from minutia.methods.classifiers.relations import (
    Relation,
    apart,
    both,
    directions,
    parted,
    recipes,
    shown_twice,
    told_alike,
)

BLUR = 0.02
"""Distances between correlations below this are no evidence, however alike the models at hand are."""
TURNED = 8
"""Innocent models whose answers are put in another order, to stand for models of another task."""
FURTHEST = 0.5
"""The distance (1 - cos)/2 of two outputs that share no class."""


@dataclass(frozen=True)
class SampleCorrelation(Relation):
    """Inputs with a piece of another one pasted in; score = -mean |C_g - C_f| over all pairs of them.

    H0: the suspect was trained without the owner's model. C_ij = (1 - cos(o_i, o_j))/2 for the outputs o_i and o_j of
    one model, so that classes may be renamed, merged or replaced. This is the variant SAC-m: CutMix inputs, each with
    a box of ``side`` (in units of the input's own) from another input. From labels alone, outputs are one-hot. A pair
    of which one answer was refused counts as far off as it could be. Of ``oversample`` times as many inputs as wanted
    those are kept, one by one, that best part innocent models from copies, by scores and by labels alike, and likewise
    answers that have nothing to do with the inputs. With fewer than 4 unrelated models inputs stay as they are drawn.

    Source: Guan, Liang, He, "Are You Stealing My Model? Sample Correlation for Fingerprinting Deep Neural Networks",
    NeurIPS 2022, arXiv 2210.15427. They use boxes of 0.2 at one place per batch, choose no inputs for SAC-m, and smooth
    labels before a softmax, which changes the unit of the score only. Choosing and ordering are ours.

    >>> SampleCorrelation(probes=50).key
    'sample_correlation(oversample=6,probes=50,side=0.5)@1'
    """

    name = "sample_correlation"
    source = "Guan, Liang, He, NeurIPS 2022, arXiv 2210.15427"

    probes: int = 100
    side: float = 0.5
    oversample: int = 6

    def __post_init__(self) -> None:
        if self.probes < 2 or self.oversample < 1:
            raise UsageError(f"expected 2 or more probes and oversample >= 1, got {self}")
        if not 0 < self.side < 1:
            raise UsageError(
                f"expected a side between 0 and 1 of the input's own, got {self.side}: 0.2 to 0.5 is usual"
            )

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Mix, store, re-check, choose one by one."""
        mixed = cut_mixed(natural_inputs(material), self.probes * self.oversample, self.side, rng)
        points = rng.permutation(np.unique(material.stored(mixed), axis=0))
        points = points[answered(model, points).status == Status.OK]
        if len(points) < self.probes:
            raise ModelError(
                f"expected {self.probes} different inputs that the model answers, got {len(points)}: "
                "give more data or ask for fewer probes"
            )
        innocents, copies, fitted = parted(material)
        order = np.arange(self.probes)
        if innocents:
            own, far = shown_twice([model], points)[0], shown_twice(innocents, points)
            near, odd = shown_twice(copies, points), strangers(far, rng)
            sides = [_Distances.of(own[view], [told[view] for told in (*far, *odd, *near)]) for view in (0, 1)]
            groups = [*recipes(innocents), len(far) + np.arange(len(odd) - 1), np.array([len(far) + len(odd) - 1])]
            order = chosen(sides, len(far) + len(odd), groups, self.probes)
        return Enrolment(numbered(points[order], {"channel": "array"}), {}, fitted)

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The score at every look, by one running sum over the pairs of the longest prefix."""
        asked = observation.only(prefixes[-1] if prefixes else ())
        own, seen = both(fp, asked)
        mine, other = correlations(directions(own)), correlations(directions(seen))
        known = seen.status == Status.OK
        known = known[:, None] & known
        off = np.where(known, np.abs(other - mine), np.maximum(mine, FURTHEST - mine))
        running = np.concatenate([[0.0], np.cumsum(np.tril(off, -1).sum(axis=1))])
        sizes = np.array([len(p) for p in prefixes], dtype=int)
        return np.asarray(-running[sizes] / np.maximum(sizes * (sizes - 1) / 2, 1))


def cut_mixed(inputs: Array, count: int, side: float, rng: np.random.Generator) -> Array:
    """Inputs (count, *shape), each with a box from another one; of flat inputs and texts, with a stretch.

    Source: Yun, Han, Oh, Chun, Choe, Yoo, "CutMix", ICCV 2019, arXiv 1905.04899.

    >>> sorted(set(cut_mixed(np.array([[0] * 4, [1] * 4]), 40, 0.5, np.random.default_rng(0)).sum(axis=1).tolist()))
    [0, 2, 4]
    """
    made = inputs[rng.integers(0, len(inputs), count)].copy()
    pasted = inputs[rng.integers(0, len(inputs), count)]
    inside = np.ones((count, *[1] * (inputs.ndim - 1)), dtype=bool)
    for axis in range(max(1, inputs.ndim - 2), inputs.ndim):
        whole = inputs.shape[axis]
        size = min(whole, max(1, round(side * whole)))
        start = rng.integers(0, whole - size + 1, count).reshape(inside.shape[0], *[1] * (inputs.ndim - 1))
        at = np.arange(whole).reshape([-1 if a == axis else 1 for a in range(inputs.ndim)])
        inside = inside & (at >= start) & (at < start + size)
    return np.where(inside, pasted, made)


def strangers(innocents: Sequence[tuple[Answers, Answers]], rng: np.random.Generator) -> list[tuple[Answers, Answers]]:
    """Answers that say nothing of the inputs: those of innocents in another order, and last one class for all.

    Models of another task answer so. Without them the first inputs chosen may all be of one class to the owner, and
    then the first model that knows only one class resembles him.
    """
    count = len(innocents[0][0])
    orders = [rng.permutation(count) for _ in innocents[:TURNED]]
    turned = [(told.take(o), labels.take(o)) for (told, labels), o in zip(innocents, orders, strict=False)]
    same = Answers.from_labels(np.zeros(count, dtype=int))
    return [*turned, (same, same)]


def correlations(outputs: Array) -> Array:
    """C (n, n) of unit vectors (n, classes).

    >>> correlations(np.eye(2)).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    return np.asarray((1 - outputs @ outputs.T) / 2)


class _Distances:
    """|C_g - C_f| between many models g (m,) and the owner f over n candidates, of which some were taken.

    ``mean`` (m, n) is the mean over all pairs of those taken and one more; before the first, over all candidates.
    """

    def __init__(self, mine: Sequence[Array], other: Sequence[Array]) -> None:
        self._sides = list(zip(mine, other, strict=True))
        self.mean = np.array([_off(a, b, slice(None)).mean(axis=1) for a, b in self._sides])
        self._with, self._within, self._taken = np.zeros_like(self.mean), np.zeros(len(self._sides)), 0

    @classmethod
    def of(cls, own: Answers, seen: Sequence[Answers]) -> "_Distances":
        """Of answers to the same candidates."""
        told = [told_alike(own, answers) for answers in seen]
        return cls([directions(a) for a, _ in told], [directions(b) for _, b in told])

    def take(self, row: int) -> None:
        """Add one candidate to those taken."""
        self._within = self._within + self._with[:, row]
        self._with += np.array([_off(a, b, row) for a, b in self._sides])
        self._taken += 1
        self.mean = (self._within[:, None] + self._with) / (self._taken * (self._taken + 1) / 2)


def _off(mine: Array, other: Array, rows: slice | int) -> Array:
    """How far correlations with these rows are from the owner's."""
    return np.asarray(np.abs(other @ other[rows].T - mine @ mine[rows].T) / 2)


def chosen(sides: Sequence[_Distances], innocents: int, groups: Sequence[Array], count: int) -> Array:
    """Rows (count,) of the candidates, one by one those that best part innocents from copies together with the others.

    The first so many models of each side are innocents, of which ``groups`` are the recipes; the others are copies.
    """
    rows = list[int]()
    while len(rows) < count:
        worth = sum(apart(side.mean[:innocents], side.mean[innocents:], groups, BLUR) for side in sides)
        worth = np.asarray(worth)
        worth[rows] = -np.inf
        rows.append(int(np.argmax(worth)))
        for side in sides:
            side.take(rows[-1])
    return np.array(rows)
