"""Attacks that move the decision boundary: adversarial training, and training on boundary points."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from minutia.attacks.crafting import across, no_text, worst_case
from minutia.attacks.learn import TrainingAttack, counted, one_of, taught
from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import GradientModel, Model, TrainableModel


@dataclass(frozen=True)
class AdversarialTraining(TrainingAttack):
    """Fine-tune all layers on worst-case inputs within ``epsilon``, made anew for every epoch.

    ``epsilon`` and ``step`` are shares of the input range. The true labels stay, so accuracy is kept while the
    boundary moves.

    Source: Madry et al., ICLR 2018, arXiv 1706.06083; as an attack in Lukas et al., IEEE S&P 2022, arXiv 2108.04974.

    >>> AdversarialTraining.from_key("adversarial_training/wrt-025").epsilon
    0.25
    """

    name = "adversarial_training"
    kind = "adversarial-training"
    source = "Madry et al., ICLR 2018, arXiv 1706.06083"
    needs = Access.TRAIN | Access.GRADIENTS
    presets: ClassVar = {
        "wrt-001": {"epsilon": 0.01, "step": 0.01, "iterations": 40},
        "wrt-010": {"epsilon": 0.1, "step": 0.01, "iterations": 40},
        "wrt-025": {"epsilon": 0.25, "step": 0.01, "iterations": 40},
        "sac": {"epochs": 2, "optimiser": "sgd", "learning_rate": 1e-3},
    }
    epsilon: float = 0.1
    step: float = 0.025
    iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.epsilon <= 1 or not 0 < self.step <= 1 or self.iterations < 1:
            raise UsageError(f"expected epsilon and step in (0, 1] and 1 or more iterations, got {self.key}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """One epoch after the other, each on points that are worst for the copy as it is then."""
        no_text(self.name, material)
        inputs, labels = self.own(material, rng)
        once, copy = replace(self.plan(), epochs=1), model
        for epoch in range(self.epochs):
            assert isinstance(copy, GradientModel)
            points = worst_case(
                copy,
                inputs,
                labels,
                material,
                rng,
                epsilon=self.epsilon,
                step=self.step,
                iterations=self.iterations,
            )
            rate = max(self.plan().rate_at(epoch / self.epochs), 1e-12)
            copy = taught(copy, points, labels, replace(once, learning_rate=rate, schedule="constant"), rng)
        if copy is model:
            raise UsageError(f"expected 1 or more epochs, got {self.epochs}: nothing would be trained")
        assert isinstance(copy, TrainableModel)
        return counted(copy, len(inputs), self.plan().steps(len(inputs)))


@dataclass(frozen=True)
class BoundaryTraining(TrainingAttack):
    """Fine-tune on boundary points around the thief's own inputs, with the true labels: he knows the method.

    With ``known="probes"`` he also knows the probes: he adds them and ``around`` noisy neighbours of each, with the
    label of his nearest own input. Noise is ``spread`` of the input range.

    Source: the adaptive attacker of Lukas et al., IEEE S&P 2022, arXiv 2108.04974; boundary points after
    Moosavi-Dezfooli et al., CVPR 2016, arXiv 1511.04599.

    >>> BoundaryTraining(known="probes").kind
    'boundary-training'
    """

    name = "boundary_training"
    kind = "boundary-training"
    source = "Lukas et al., IEEE S&P 2022, arXiv 2108.04974"
    needs = Access.TRAIN | Access.GRADIENTS
    points: int = 2
    known: str = "method"
    around: int = 4
    spread: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("known", self.known, ("method", "probes"))
        if self.points < 1 or self.around < 0 or not 0 <= self.spread <= 1:
            raise UsageError(f"expected 1 or more points, around >= 0 and spread in [0, 1], got {self.key}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Make the points on the victim, then train on them and on the clean inputs."""
        no_text(self.name, material)
        inputs, labels = self.own(material, rng)
        assert isinstance(model, GradientModel)
        near, named = self.boundary(model, inputs, labels, material, rng)
        parts, names = [inputs, near], [labels, named]
        if self.known == "probes":
            known, called = self.neighbours(inputs, labels, material, rng)
            parts.append(known)
            names.append(called)
        everything, targets = np.concatenate(parts), np.concatenate(names)
        copy = taught(model, everything, targets, self.plan(), rng)
        return counted(copy, len(everything), self.plan().steps(len(everything)))

    def boundary(
        self, model: GradientModel, inputs: Array, labels: Array, material: Material, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """For each input so many points on the victim's boundary towards other classes, with the input's true label."""
        logits, _ = model.linearise(inputs[:1])
        classes = logits.shape[1]
        starts, true = (np.repeat(a, self.points, axis=0) for a in (inputs, labels))
        own = model.linearise(starts)[0].argmax(axis=1)
        goals = (own + rng.integers(1, classes, len(own))) % classes
        found, reached = across(model, starts, own, goals, material)
        return material.stored(found[reached]), true[reached]

    def neighbours(
        self, inputs: Array, labels: Array, material: Material, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """The disclosed probes and their neighbourhoods, each with the label of the nearest own input."""
        if material.disclosed is None:
            raise UsageError(f"expected disclosed probes for {self.name}(known=probes), got none: name a fingerprint")
        probes = material.disclosed.inputs
        low, high = material.bounds
        noise = rng.normal(0, self.spread * (high - low), (self.around, *probes.shape))
        found = material.stored(np.concatenate([probes, *(probes + noise)]))
        return found, labels[nearest(found, inputs)]


def nearest(points: Array, inputs: Array) -> Array:
    """For each point the row of the nearest input.

    >>> nearest(np.array([[0.9]]), np.array([[0.0], [1.0]])).tolist()
    [1]
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(inputs.reshape(len(inputs), -1))
    return np.asarray(tree.query(points.reshape(len(points), -1))[1], dtype=int)
