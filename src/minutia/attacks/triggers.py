"""Attacks on trigger sets: inversion and unlearning of triggers, and overwriting with the thief's own mark."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minutia.attacks.crafting import away_from, gradients, no_text
from minutia.attacks.learn import TrainingAttack, counted, taught
from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import GradientModel, Model

ANOMALOUS = 2.0
"""Median absolute deviations below the median at which a trigger is suspiciously small, as in the paper."""


@dataclass(frozen=True)
class InvertTriggers(TrainingAttack):
    """Find for each class the smallest patch that sends inputs to it, and unlearn those that are anomalously small.

    A mask and a pattern per class are fitted on ``seeds`` inputs for ``turns`` Adam steps; the loss is the
    cross-entropy with the class plus ``cost`` times the mask's size. Triggers two median deviations below the median,
    or else the smallest one, are stamped on the thief's inputs, and the copy is fine-tuned on these with true labels.

    Source: Wang et al., "Neural Cleanse", IEEE S&P 2019.

    >>> InvertTriggers().kind
    'invert-triggers'
    """

    name = "invert_triggers"
    kind = "invert-triggers"
    source = "Wang et al., Neural Cleanse, IEEE S&P 2019"
    needs = Access.TRAIN | Access.GRADIENTS
    presets: ClassVar = {"wrt": {"epochs": 5}}
    seeds: int = 64
    turns: int = 100
    pace: float = 0.1
    cost: float = 0.05
    stamped: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seeds < 1 or self.turns < 1 or not self.pace > 0 or self.cost < 0 or not 0 < self.stamped <= 1:
            raise UsageError(f"expected seeds, turns >= 1, pace > 0, cost >= 0 and stamped in (0, 1], got {self.key}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Invert, pick, stamp, fine-tune."""
        no_text(self.name, material)
        assert isinstance(model, GradientModel)
        inputs, labels = self.own(material, rng)
        seeds = inputs[rng.permutation(len(inputs))[: self.seeds]]
        classes = model.linearise(seeds[:1])[0].shape[1]
        masks, patterns = self.inverted(model, seeds, classes, material)
        parts, names = [inputs], [labels]
        for trigger in smallest(masks.reshape(classes, -1).sum(axis=1)):
            rows = rng.permutation(len(inputs))[: max(1, round(self.stamped * len(inputs)))]
            parts.append(material.stored(stamp(inputs[rows], masks[trigger], patterns[trigger])))
            names.append(labels[rows])
        everything, targets = np.concatenate(parts), np.concatenate(names)
        copy = taught(model, everything, targets, self.plan(), rng)
        return counted(copy, len(everything), self.plan().steps(len(everything)))

    def inverted(self, model: GradientModel, seeds: Array, classes: int, material: Material) -> tuple[Array, Array]:
        """Masks in [0, 1] and patterns within the box, (classes, *shape), all classes in one batch."""
        low, high = material.bounds
        shape = seeds.shape[1:]
        raw = np.zeros((2, classes, *shape))  # before the sigmoid: mask, pattern
        raw[0] -= 2.0
        mean, square = np.zeros_like(raw), np.zeros_like(raw)
        goals = np.repeat(np.arange(classes), len(seeds))
        for turn in range(1, self.turns + 1):
            mask, pattern = (1 / (1 + np.exp(-np.clip(part, -30, 30))) for part in raw)
            filled = low + (high - low) * pattern
            points = stamp(seeds[None], mask[:, None], filled[:, None]).reshape(-1, *shape).astype(np.float32)
            pulled = gradients(model, points, away_from(goals)).reshape(classes, len(seeds), *shape)
            by_mask = (pulled * (filled[:, None] - seeds[None])).mean(axis=1) + self.cost
            by_pattern = (pulled * mask[:, None]).mean(axis=1) * (high - low)
            slope = np.stack([by_mask * mask * (1 - mask), by_pattern * pattern * (1 - pattern)])
            mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
            step = (mean / (1 - 0.9**turn)) / (np.sqrt(square / (1 - 0.999**turn)) + 1e-8)
            raw = raw - self.pace * step
        mask, pattern = (1 / (1 + np.exp(-np.clip(part, -30, 30))) for part in raw)
        return mask, low + (high - low) * pattern


@dataclass(frozen=True)
class Overwrite(TrainingAttack):
    """Train the thief's own mark into the copy: random inputs with random labels, mixed into fine-tuning.

    ``triggers`` are shown ``repeat`` times in every epoch.

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633 (100 random images with random labels); as an attack in
    Lukas et al., IEEE S&P 2022, arXiv 2108.04974.

    >>> Overwrite().triggers
    100
    """

    name = "overwrite"
    kind = "overwrite"
    source = "Lukas et al., IEEE S&P 2022, arXiv 2108.04974"
    needs = Access.TRAIN
    presets: ClassVar = {"adi": {"epochs": 20}}
    epochs: int = 10
    triggers: int = 100
    repeat: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.triggers < 1 or self.repeat < 1:
            raise UsageError(f"expected 1 or more triggers and repeats, got {self.triggers} and {self.repeat}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Draw the mark, then fine-tune on it and on own data."""
        inputs, labels = self.own(material, rng)
        low, high = material.bounds
        mark = material.stored(rng.uniform(low, high, (self.triggers, *inputs.shape[1:])))
        names = rng.integers(0, int(material.labels.max()) + 1, self.triggers)
        everything = np.concatenate([inputs, *[mark] * self.repeat])
        targets = np.concatenate([labels, *[names] * self.repeat])
        copy = taught(model, everything, targets, self.plan(), rng)
        return counted(copy, len(everything), self.plan().steps(len(everything)))


def stamp(inputs: Array, mask: Array, pattern: Array) -> Array:
    """Inputs with a pattern laid over them where the mask is 1.

    >>> stamp(np.array([[0.0, 0.0]]), np.array([1.0, 0.5]), np.array([1.0, 1.0])).tolist()
    [[1.0, 0.5]]
    """
    return np.asarray((1 - mask) * inputs + mask * pattern)


def smallest(sizes: Array) -> Array:
    """Triggers that are anomalously small by the median absolute deviation; if none is, the smallest.

    >>> smallest(np.array([5.0, 5.2, 1.0, 4.9])).tolist(), smallest(np.array([2.0, 1.0, 3.0])).tolist()
    ([2], [1])
    """
    middle = np.median(sizes)
    spread = 1.4826 * np.median(np.abs(sizes - middle))
    found = np.flatnonzero(sizes < middle - ANOMALOUS * spread) if spread > 0 else np.array([], int)
    return found if len(found) else np.array([int(sizes.argmin())])
