"""FIT-Print: secret bits fixed beforehand, and pairs of inputs that are made to spell them."""

from collections.abc import Sequence
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
from minutia.methods.classifiers.boundary import margins
from minutia.methods.classifiers.crafting import descend, lead_slope, softmax
from minutia.methods.classifiers.ensembles import answered, natural_inputs
from minutia.methods.classifiers.relations import (
    FAR,
    Paired,
    apart,
    directions,
    distances,
    off_by,
    parted,
    recipes,
    shown_twice,
    whole,
)
from minutia.methods.classifiers.stepwise import rate_scale
from minutia.stats.sequential import Standardiser

BLUR = 0.1
"""Rates below this are no evidence, however alike the models at hand are."""


@dataclass(frozen=True)
class FitPrint(Paired):
    """Pairs of an input and a perturbed one that spell secret bits: 1 if their outputs are far, 0 if near each other.

    H0: the suspect was trained without the owner's model. The bits are drawn first; then, for a 1, a copy of the input
    is moved into another class of the owner's, for a 0 an input of another class into that of the first, until it leads
    there by the quantile ``margin`` of the owner's own top-1 to top-2 margins and the bit is spelt. A bit is 1 where
    the decision distance 1 - cos(g(x), g(x')) is at least 1/2, and from labels alone where the two are named
    differently: the sign pattern of the decision distance vector, shifted by 1/2. Of ``oversample`` times as many pairs
    as wanted those are kept, for each bit in its place, on which innocent models say otherwise and copies do not. The
    score is the share of equal bits. A pair of which one answer was refused does not match; each costs two questions.

    The score is ranked among unrelated models, never held against Binomial(bits, 1/2): the bits are secret and
    independent of the suspect, but the inputs are not independent of the bits. They were moved until one model spells
    them, and other models of the same task follow such moves more or less often than every second time. What fixed
    bits do rule out is a target chosen after the answers were seen.

    Source: Shao, Zhu, Yao, Li, Zhang, Qin, Ren, "FIT-Print", arXiv 2501.15509 (FIT-ModelDiff). Starting each pair from
    the opposite of its bit, choosing and ordering are ours.

    >>> FitPrint(bits=40).key
    'fit_print(bits=40,margin=0.1,oversample=8,rate=0.01,steps=60)@1'
    """

    name = "fit_print"
    source = "Shao, Zhu, Yao, Li, Zhang, Qin, Ren, arXiv 2501.15509"

    bits: int = 60
    margin: float = 0.1
    rate: float = 0.01
    steps: int = 60
    oversample: int = 8

    def __post_init__(self) -> None:
        if self.bits < 2 or self.oversample < 1 or self.steps < 1:
            raise UsageError(f"expected 2 or more bits, oversample >= 1 and 1 or more steps, got {self}")
        if not 0 <= self.margin <= 1 or not 0 < self.rate < np.inf:
            raise UsageError(f"expected a margin in [0, 1] and a positive rate, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Fix the bits, craft pairs of both kinds, store, re-check, choose one for each bit."""
        assert isinstance(model, GradientModel)
        bits = rng.integers(0, 2, self.bits)
        points, wanted = self.craft(model, material, rng)
        own = shown_twice([model], points)[0]
        fine = np.all([spelt(answers) == wanted for answers in own], axis=0)
        points, wanted = points.reshape(len(wanted), 2, *points.shape[1:])[fine], wanted[fine]
        short = [bit for bit in (0, 1) if (wanted == bit).sum() < (bits == bit).sum()]
        if short:
            raise ModelError(
                f"expected {(bits == short[0]).sum()} pairs that spell a {short[0]} after storage, got "
                f"{(wanted == short[0]).sum()}: give more data, more steps or a smaller margin"
            )
        innocents, copies, fitted = parted(material)
        order = self._placed(bits, wanted, points.reshape(-1, *points.shape[2:]), innocents, copies, rng)
        probes = numbered(points[order].reshape(-1, *points.shape[2:]), {"channel": "array"})
        return Enrolment(probes, {"bits": bits.astype(np.int8)}, fitted)

    def craft(self, model: GradientModel, material: Material, rng: np.random.Generator) -> tuple[Array, Array]:
        """Pairs in a row (2n, *shape) and the bits (n,) that they are to spell, one half each."""
        count = self.bits * self.oversample
        inputs = material.stored(natural_inputs(material))
        logits, _ = model.linearise(inputs)
        labels = logits.argmax(axis=1)
        first = rng.integers(0, len(inputs), count)
        wanted = np.arange(count) % 2
        starts = np.where(wanted == 1, first, _other_class(labels, first, rng))
        gap = float(np.quantile(margins(logits), self.margin))
        low, high = material.bounds
        outputs = directions(answered(model, inputs))

        def slope(seen: Array, rows: Array) -> Array:
            far = 1 - (directions(Answers.from_scores(softmax(seen))) * outputs[first[rows]]).sum(axis=1) >= FAR
            asked_for = far == wanted[rows]
            return lead_slope(seen, labels[first[rows]], wanted[rows] == 0, np.where(asked_for, gap, np.inf))

        moved = descend(
            model, inputs[starts], slope, lambda at, _: np.clip(at, low, high), self.rate * (high - low), self.steps
        )
        made = np.stack([inputs[first], material.stored(moved)], axis=1)
        return made.reshape(2 * count, *inputs.shape[1:]), wanted

    def likeness(self, fp: Fingerprint, number: Array, seen: Answers, upto: Array) -> Array:
        """The share of equal bits at every look."""
        running = np.concatenate([[0.0], np.cumsum(spelt(seen) == fp.arrays["bits"][number])])
        return np.asarray(running[upto] / np.maximum(upto, 1))

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """Declared variance as of a matching rate, with pairs in place of probes."""
        return rate_scale(spent, np.maximum(sizes // 2, 1))

    def _placed(
        self,
        bits: Array,
        wanted: Array,
        points: Array,
        innocents: Sequence[Model],
        copies: Sequence[Model],
        rng: np.random.Generator,
    ) -> Array:
        """Rows of the candidates, one for each bit in its place: the best that is left, together with those before."""
        if not innocents:
            return chosen(bits, wanted, [(rng.random((1, len(wanted))), np.empty((0, len(wanted))))], [np.arange(1)])
        views = off_by((innocents, copies), points, lambda seen, _: spelt(seen) != wanted)
        return chosen(bits, wanted, views, recipes(innocents))


def chosen(bits: Array, wanted: Array, views: Sequence[Sequence[Array]], groups: Sequence[Array]) -> Array:
    """Rows for the bits (b,) in their order, each one of those that spell it and together with the others tell most.

    Each view holds which innocents (a, n) and which copies (c, n) do not spell what is wanted (n,).
    """
    left, rows = np.ones(len(wanted), dtype=bool), list[int]()
    before = [[np.zeros((len(side), 1)) for side in view] for view in views]
    for place, bit in enumerate(bits, start=1):
        rates = [
            [(b + side) / place for b, side in zip(*both, strict=True)] for both in zip(before, views, strict=True)
        ]
        worth = np.sum([apart(far, near, groups, BLUR) for far, near in rates], axis=0)
        rows.append(int(np.argmax(np.where(left & (wanted == bit), worth, -np.inf))))
        left[rows[-1]] = False
        before = [[rate[:, rows[-1:]] * place for rate in view] for view in rates]
    return np.array(rows)


def spelt(answers: Answers) -> Array:
    """Bits (p,) of answers to p pairs in a row: 1 far, 0 near, -1 where one was not answered.

    >>> spelt(Answers.from_labels(np.array([3, 3, 0, 1, 0, -1]))).tolist()
    [0, 1, -1]
    """
    return np.where(whole(answers), distances(answers) >= FAR, -1).astype(int)


def _other_class(labels: Array, rows: Array, rng: np.random.Generator) -> Array:
    """For each row another one that the model puts in another class; where there is none, the row itself."""
    found = rows.copy()
    for label in np.unique(labels[rows]):
        mine, other = np.flatnonzero(labels[rows] == label), np.flatnonzero(labels != label)
        if len(other):
            found[mine] = rng.choice(other, len(mine))
    return found
