"""DeepJudge without open weights: how a suspect fares on adversarial examples of the owner's model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.crafting import Slope, ascend, boxed, lead_slope, pulled, softmax
from minutia.methods.classifiers.ensembles import answered
from minutia.methods.classifiers.stepwise import Stepwise, mean_growth, rows_of, steadied
from minutia.stats.sequential import Standardiser

LEAST_SPREAD = 0.02
"""Smallest deviation of a score among spent models that is believed."""


@dataclass(frozen=True)
class DeepJudge(Stepwise):
    """Adversarial examples that fool the owner's model; score = half robustness, half likeness of the answers.

    H0: the suspect was trained without the owner's model. Seeds are correctly answered inputs, held-out ones where
    there are some, the most certain first. Each is attacked by FGSM, by PGD (``steps`` steps, both within ``epsilon``
    of the seed in units of the input range) and by the attack of Carlini and Wagner, which looks for the nearest
    example that the owner's model takes for another class by ``confidence`` logits; only successes are asked. Of the
    metrics that need no weights, RobD is the share of examples that the suspect answers correctly (the owner's is 0)
    and JSD the mean Jensen-Shannon distance of its answers to the owner's in bits. The score is
    ((1 - RobD) + (1 - JSD)) / 2; of labels alone, JSD is the share of labels that differ. Nothing is screened on
    innocent models, which share adversarial examples: its place is beside other methods.

    Source: Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song, "Copy, Right? A Testing Framework for Copyright Protection
    of Deep Learning Models", IEEE S&P 2022, arXiv 2112.05588. They compare each metric with a threshold and take a
    vote. Attacks: Goodfellow, Shlens, Szegedy, ICLR 2015; Madry, Makelov, Schmidt, Tsipras, Vladu, ICLR 2018; Carlini,
    Wagner, IEEE S&P 2017.

    >>> DeepJudge(probes=60).key
    'deepjudge(confidence=5.0,epsilon=0.1,probes=60,steps=10)@1'
    """

    name = "deepjudge"
    source = "Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song, IEEE S&P 2022, arXiv 2112.05588"
    owner_needs = Access.LABELS | Access.GRADIENTS
    serves = frozenset({"image", "tabular"})

    probes: int = 150
    epsilon: float = 0.1
    steps: int = 10
    confidence: float = 5.0

    def __post_init__(self) -> None:
        if self.probes < 2 or self.steps < 1:
            raise UsageError(f"expected 2 or more probes and 1 or more steps, got {self}")
        if not 0 < self.epsilon <= 1 or not 0 <= self.confidence < np.inf:
            raise UsageError(f"expected epsilon in (0, 1] and a confidence from 0, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Attack the most certain seeds in three ways and keep what fools the owner's model, seed by seed."""
        assert isinstance(model, GradientModel)
        seeds, truth = certain(model, material, self.probes)
        made = [attack(model, seeds, truth, material) for attack in (self.fgsm, self.pgd, self.cw)]
        points = np.stack([material.stored(x) for x in made], axis=1).reshape(-1, *seeds.shape[1:])
        truth = np.repeat(truth, len(made))
        labels = answered(model, points).labels
        _, first = np.unique(points.reshape(len(points), -1), axis=0, return_index=True)
        fooled = np.intersect1d(first, np.flatnonzero((labels >= 0) & (labels != truth)))[: self.probes]
        if len(fooled) < 2:
            raise ModelError(
                f"expected 2 or more adversarial examples that survive storage, got {len(fooled)} from {len(seeds)} "
                "inputs: choose a larger epsilon or give more data"
            )
        return Enrolment(numbered(points[fooled], {"channel": "array"}), {"truth": truth[fooled].astype(np.int64)})

    def fgsm(self, model: GradientModel, seeds: Array, truth: Array, material: Material) -> Array:
        """One step of ``epsilon`` along the sign of the loss's gradient."""
        return seeds + self._reach(material) * np.sign(pulled(model, seeds, loss_slope(truth)))

    def pgd(self, model: GradientModel, seeds: Array, truth: Array, material: Material) -> Array:
        """``steps`` small steps, each put back into the box of ``epsilon`` around its seed."""
        reach, at = self._reach(material), seeds
        for _ in range(self.steps):
            moved = at + 2.5 * reach / self.steps * np.sign(pulled(model, at, loss_slope(truth)))
            at = boxed(moved, seeds, reach, material.bounds).astype(np.float32)
        return at

    def cw(self, model: GradientModel, seeds: Array, truth: Array, material: Material) -> Array:
        """Minimise the squared distance to the seed plus the lead of the true class, up to minus ``confidence``."""
        low, high = material.bounds

        def gradient(at: Array) -> Array:
            near = 2 * (at - seeds) / (high - low) ** 2
            return near + pulled(model, at, lambda z: lead_slope(z, truth, into=False, gap=self.confidence))

        return ascend(seeds, gradient, 10 * self.steps, 0.01 * (high - low), lambda x: np.clip(x, low, high))

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The score at every look: both metrics are means over examples."""
        longest = prefixes[-1] if prefixes else ()
        rows = rows_of(fp, longest)
        told = alike(fp.answers.take(rows), observation.only(longest).answers, fp.arrays["truth"][rows])
        running = np.cumsum(told) / np.arange(1, len(longest) + 1)
        return running[[len(p) - 1 for p in prefixes]]

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """The spent models' deviation at full length, larger at early looks as a mean of fewer answers varies."""
        if len(spent) < 2:
            return super().scale(spent, sizes)
        return steadied(spent, mean_growth(sizes), LEAST_SPREAD)

    def _reach(self, material: Material) -> float:
        return self.epsilon * (material.bounds[1] - material.bounds[0])


def certain(model: Model, material: Material, count: int) -> tuple[Array, Array]:
    """Correctly answered inputs (n, *shape) and their labels, the most certain (sum of squared scores) first."""
    inputs, labels = (material.inputs, material.labels) if material.held_out is None else material.held_out
    answers = answered(model, material.stored(inputs))
    right = np.flatnonzero(answers.labels == labels)
    if answers.scores is not None:
        right = right[np.argsort(-np.sum(answers.scores[right] ** 2, axis=1), kind="stable")]
    return material.stored(inputs[right[:count]]), np.asarray(labels)[right[:count]]


def alike(own: Answers, seen: Answers, truth: Array) -> Array:
    """Per example (n,), the mean of: it is fooled (0 or 1), and it answers like the owner (0 to 1).

    >>> own, same = (Answers.from_labels(np.array([1, 1, 1])) for _ in range(2))
    >>> alike(own, Answers.from_labels(np.array([1, 2, 0])), np.array([0, 0, 0])).tolist()
    [1.0, 0.5, 0.0]
    """
    answered = seen.labels >= 0
    if seen.scores is None or own.scores is None:
        like = (seen.labels == own.labels).astype(float)
    else:
        classes = max(seen.scores.shape[1], own.scores.shape[1])
        like = 1 - divergence(_padded(own, classes), _padded(seen, classes))
    return np.where(answered, ((seen.labels != truth) + like) / 2, 0.0)


def divergence(first: Array, second: Array) -> Array:
    """Jensen-Shannon divergence (n,) of rows of probabilities (n, classes) in bits, from 0 to 1.

    Source: Lin, IEEE Transactions on Information Theory 37(1), 1991.

    >>> divergence(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    middle = (first + second) / 2

    def apart(p: Array) -> Array:
        ratio = np.divide(p, middle, out=np.ones(np.broadcast(p, middle).shape), where=(p > 0) & (middle > 0))
        return np.asarray(np.sum(p * np.log2(ratio), axis=1))

    return np.clip((apart(first) + apart(second)) / 2, 0.0, 1.0)


def loss_slope(truth: Array) -> Slope:
    """d(cross-entropy)/d(logits) of these labels."""

    def slope(logits: Array) -> Array:
        found = softmax(logits)
        found[np.arange(len(found)), truth] -= 1
        return found

    return slope


def _padded(answers: Answers, classes: int) -> Array:
    """Probabilities (n, classes); classes that a model does not know have none."""
    assert answers.scores is not None
    known = answers.probabilities(answers.scores.shape[1])
    return np.pad(known, ((0, 0), (0, classes - known.shape[1])))
