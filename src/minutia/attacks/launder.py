"""Laundering: the function stays, the weights are no longer where they were."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers
from minutia.core.attack import Attack
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import Model, ModelCard
from minutia.core.probe import numbered
from minutia.core.units import Units, folded, layered, permuted, rescaled

CHECKED = 64
"""On how many of the thief's inputs the copy is compared with the victim."""
TOLERANCE = 1e-4
"""How far an answer may move, relative to the range of the victim's answers: float noise, and no more."""
Weights = dict[str, Array]


@dataclass(frozen=True)
class _Laundering(Attack):
    """Change the weights so that the function stays, and check on the thief's inputs that it does."""

    needs = Access.WEIGHTS | Access.FEATURES
    source = "Yan et al., USENIX Security 2023, arXiv 2303.09732"

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Rebuild the model from changed weights; the largest change of an answer goes on the card."""
        victim, groups = layered(model, self.name)
        copy = victim.rebuilt(self.change(dict(victim.tensors()), groups, rng))
        moved = largest_change(victim, copy, material.inputs[:CHECKED])
        if not moved < TOLERANCE:
            raise ModelError(
                f"expected {self.name} to keep the answers of {victim.spec}, got one moved by {moved:.2g} of their "
                "range: its hidden units are not what they seem, leave this attack out for it"
            )
        copy.card = ModelCard(copy.card.id, copy.card.root, fidelity={"largest_change": moved})
        return copy

    @abstractmethod
    def change(self, weights: Weights, groups: Sequence[Units], rng: np.random.Generator) -> Weights:
        """All tensors of the copy."""


@dataclass(frozen=True)
class PermuteUnits(_Laundering):
    """Put the units of every hidden layer into a random order.

    Source: Yan et al., "Rethinking White-Box Watermarks on Deep Learning Models under Neural Structural Obfuscation",
    USENIX Security 2023, arXiv 2303.09732.

    >>> PermuteUnits().key
    'permute_units()'
    """

    name = "permute_units"
    kind = "permute-units"

    def change(self, weights: Weights, groups: Sequence[Units], rng: np.random.Generator) -> Weights:
        """One order per group of units."""
        for group in groups:
            weights = permuted(weights, group, rng.permutation(group.count))
        return weights


@dataclass(frozen=True)
class RescaleUnits(_Laundering):
    """Multiply what makes a unit by a factor and divide what reads it: between 1 / ``strength`` and ``strength``.

    Factors are log-uniform. It needs activations such as ReLU, for which f(c x) = c f(x).

    Source: Yan et al., USENIX Security 2023, arXiv 2303.09732.

    >>> RescaleUnits().factors(3, np.random.default_rng(0)).round(2).tolist()
    [1.88, 0.35, 0.12]
    """

    name = "rescale_units"
    kind = "rescale-units"
    strength: float = 10.0

    def __post_init__(self) -> None:
        if not 1 < self.strength <= 1e3:
            raise UsageError(f"expected a strength above 1 and at most 1000, got {self.strength}")

    def change(self, weights: Weights, groups: Sequence[Units], rng: np.random.Generator) -> Weights:
        """One factor per unit, in groups that keep their function under it."""
        scalable = [group for group in groups if group.homogeneous]
        if not scalable:
            raise UsageError(
                f"expected hidden units between ReLUs or the like for {self.name}, got none: "
                "with other activations the function would change"
            )
        for group in scalable:
            weights = rescaled(weights, group, self.factors(group.count, rng))
        return weights

    def factors(self, count: int, rng: np.random.Generator) -> Array:
        """Positive factors (count,)."""
        return np.asarray(self.strength ** rng.uniform(-1, 1, count))


@dataclass(frozen=True)
class FoldNorms(_Laundering):
    """Fold every batch norm into the layer before it, so that the norm does nothing.

    A layer without a bias cannot take the shift, which then stays in the norm.

    Source: Yan et al., USENIX Security 2023, arXiv 2303.09732.

    >>> FoldNorms().kind
    'fold-norms'
    """

    name = "fold_norms"
    kind = "fold-norms"

    def change(self, weights: Weights, groups: Sequence[Units], rng: np.random.Generator) -> Weights:
        """Every norm whose layer nothing else reads."""
        norms = [norm for group in groups for norm in group.norms]
        if not norms:
            raise UsageError(
                f"expected batch norms behind layers for {self.name}, got a model without: use it on one that has them"
            )
        for norm in norms:
            weights |= folded(weights, norm)
        return weights


def largest_change(model: Model, copy: Model, inputs: Array) -> float:
    """The largest difference between two models' answers, relative to the range of the first's.

    Logits are compared, or scores where there are none. Without inputs it cannot be measured: UsageError.
    """
    if not len(inputs):
        raise UsageError("expected inputs to check that the function stays, got none: give the material some")
    asked = numbered(inputs, {})
    before, after = _values(model.ask(asked)), _values(copy.ask(asked))
    return float(np.abs(after - before).max() / (np.ptp(before) or 1.0))


def _values(answers: Answers) -> Array:
    found = answers.scores if answers.logits is None else answers.logits
    return answers.labels[:, None] if found is None else found
