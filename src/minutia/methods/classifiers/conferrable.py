"""Conferrable adversarial examples: points that transfer to copies of the owner's model and to nobody else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.crafting import ascend, boxed, softmax
from minutia.methods.classifiers.ensembles import (
    answered,
    by_recipe,
    differentiable,
    enough,
    natural_inputs,
    roots,
)
from minutia.methods.classifiers.match_rate import MatchRate, confidence

LEAST = 8
"""Models of each side below which crafted points transfer by luck."""
TINY = 1e-6


@dataclass(frozen=True)
class Conferrable(MatchRate):
    """Adversarial examples crafted on an ensemble of copies and one of innocent models, screened on neither.

    H0: the suspect was trained without the owner's model. With Surr and Ref the mean probabilities of copies and of
    innocent models, each whole model left out with probability ``dropout`` at every step, and Conferr = Surr (1 - Ref),
    a point x' near the input x minimises -log max_t Conferr_t(x') (be conferrable) - H(f(x), f(x')) (leave the owner's
    class) + H(f(x'), Surr(x')) (copies follow the owner), by Adam within ``epsilon`` of x in units of the input range.
    ``ensemble`` models of each side at most enter a step. ``oversample`` times as many points as wanted are crafted;
    those best separated on models that took no part are kept, the most conferrable first.

    Source: Lukas, Zhang, Kerschbaum, "Deep Neural Network Fingerprinting by Conferrable Adversarial Examples", ICLR
    2021, arXiv 1912.00888. They keep points whose conferrability on the ensemble itself is at least .95 and decide by
    a constant; here it is measured on held-out models and decided by rank.

    >>> Conferrable(probes=40).key
    'conferrable(dropout=0.3,ensemble=12,epsilon=0.25,oversample=6,probes=40,rate=0.01,steps=150)@1'
    """

    name = "conferrable"
    source = "Lukas, Zhang, Kerschbaum, ICLR 2021, arXiv 1912.00888"
    learns = True
    owner_needs = Access.LABELS | Access.GRADIENTS
    serves = frozenset({"image", "tabular"})

    probes: int = 60
    epsilon: float = 0.25
    rate: float = 0.01
    steps: int = 150
    dropout: float = 0.3
    ensemble: int = 12
    oversample: int = 6

    def __post_init__(self) -> None:
        if self.probes < 2 or min(self.oversample, self.steps, self.ensemble) < 1:
            raise UsageError(f"expected 2 or more probes, and 1 or more of everything else that is counted, got {self}")
        if not 0 < self.epsilon <= 1 or not 0 < self.rate < np.inf or not 0 <= self.dropout < 1:
            raise UsageError(f"expected epsilon in (0, 1], a positive rate and dropout in [0, 1), got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Craft on some models, screen on others."""
        assert isinstance(model, GradientModel)
        fit, screen = material.parted()
        sides = ([*fit.derived, *fit.surrogates], fit.unrelated)
        copies, innocents = (differentiable(some, model, material.inputs) for some in sides)
        enough(copies, LEAST, "copies with gradients to craft on", "make more of them, 'minutia extract --copies 9'")
        enough(innocents, LEAST, "unrelated models with gradients to craft on", "'minutia null build --spent 80'")
        natural = natural_inputs(material)
        starts = natural[rng.permutation(len(natural))[: self.probes * self.oversample]]
        points = np.unique(material.stored(self.craft(model, copies, innocents, starts, material, rng)), axis=0)
        labels, before = answered(model, points).labels, answered(model, material.stored(starts)).labels
        fine = labels >= 0
        points, labels = points[fine], labels[fine]
        if len(points) < self.probes:
            raise ModelError(
                f"expected {self.probes} points that survive storage, got {len(points)} from {len(before)} inputs: "
                "give more data or ask for fewer probes"
            )
        conferred = self.conferrability(screen, points, labels)
        order = np.argsort(-conferred, kind="stable")[: self.probes]
        probes = numbered(points[order], {"channel": "array"})
        return Enrolment(probes, {"conferred": conferred[order]}, roots(fit.unrelated))

    def craft(
        self,
        model: GradientModel,
        copies: Sequence[GradientModel],
        innocents: Sequence[GradientModel],
        starts: Array,
        material: Material,
        rng: np.random.Generator,
    ) -> Array:
        """Points (n, *shape) within ``epsilon`` of the starts that minimise the three loss terms."""
        first = softmax(model.linearise(starts)[0].astype(np.float64))
        low, high = material.bounds
        reach = self.epsilon * (high - low)

        def gradient(at: Array) -> Array:
            kept = self.drawn(copies, rng), self.drawn(innocents, rng)
            own, *seen = (
                [(softmax(z.astype(np.float64)), pull) for z, pull in (m.linearise(at) for m in some)]
                for some in ([model], *kept)
            )
            surrogate, reference = (np.mean([p for p, _ in side], axis=0) for side in seen)
            f = own[0][0]
            for_f, for_surrogate, for_reference = slopes(first, f, surrogate, reference)
            found = own[0][1](_through_softmax(f, for_f))
            for side, slope in zip(seen, (for_surrogate, for_reference), strict=True):
                for p, pull in side:
                    found = found + pull(_through_softmax(p, slope / len(side)))
            return np.asarray(found)

        rate = self.rate * (high - low)
        return ascend(starts, gradient, self.steps, rate, lambda x: boxed(x, starts, reach, material.bounds))

    def drawn(self, models: Sequence[GradientModel], rng: np.random.Generator) -> list[GradientModel]:
        """Whole models that stay in this step: each with probability 1 - ``dropout``, of each kind as many."""
        kinds = by_recipe(models)
        some = [kinds[k][rng.integers(len(kinds[k]))] for k in rng.integers(0, len(kinds), self.ensemble)]
        kept = [m for m in some if rng.random() >= self.dropout]
        return kept or some[:1]

    def conferrability(self, screen: Material, points: Array, own: Array) -> Array:
        """Transfer(copies) (1 - Transfer(innocents)) of each point (n,) on models that took no part in crafting."""
        probes = numbered(points, {})
        copies, innocents = (
            confidence(some, probes, own) for some in ([*screen.derived, *screen.surrogates], screen.unrelated)
        )
        if not len(copies) or not len(innocents):
            raise UsageError(
                f"expected copies and unrelated models to screen with, got {len(copies)} and {len(innocents)}: "
                "every fourth of what is given is kept apart, give more"
            )
        return np.asarray(copies.mean(axis=0) * (1 - innocents.mean(axis=0)))


def slopes(first: Array, f: Array, surrogate: Array, reference: Array) -> tuple[Array, Array, Array]:
    """Derivatives of the three loss terms in the probabilities (n, classes) of f, of Surr and of Ref.

    ``first`` are the owner's probabilities at the start.

    >>> one, other = np.array([[0.6, 0.4]]), np.array([[0.5, 0.5]])
    >>> [s.round(2).tolist() for s in slopes(one, other, other, other)]
    [[[1.89, 1.49]], [[-3.0, -1.0]], [[2.0, 0.0]]]
    """
    rows = np.arange(len(f))
    best = (surrogate * (1 - reference)).argmax(axis=1)
    for_surrogate = -f / np.maximum(surrogate, TINY)
    for_surrogate[rows, best] -= 1 / np.maximum(surrogate[rows, best], TINY)
    for_reference = np.zeros_like(reference)
    for_reference[rows, best] = 1 / np.maximum(1 - reference[rows, best], TINY)
    for_f = first / np.maximum(f, TINY) - np.log(np.maximum(surrogate, TINY))
    return for_f, for_surrogate, for_reference


def _through_softmax(p: Array, slope: Array) -> Array:
    """d(loss)/d(logits) from d(loss)/d(probabilities), both (n, classes)."""
    return np.asarray(p * (slope - (p * slope).sum(axis=1, keepdims=True)), dtype=np.float32)
