"""Structured pruning: whole hidden units are removed, by their weights or by their activity."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minutia.attacks.learn import TrainingAttack, counted, taught
from minutia.core.access import Access
from minutia.core.attack import Attack
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Model, TrainableModel
from minutia.core.units import Units, incoming, layered, without


@dataclass(frozen=True)
class PruneChannels(Attack):
    """Remove the hidden units with the smallest incoming weights (sum of absolute values) from every layer.

    The share of each layer is drawn within ``spread`` of ``fraction``; at least one unit stays. Removed units keep
    their place, with zeros in all tensors that make or read them: the function is that of the narrower network.

    Source: Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, arXiv 1608.08710.

    >>> PruneChannels(fraction=0.5, spread=0.0).gone(np.array([3.0, 1.0, 2.0, 4.0]), np.random.default_rng(0)).tolist()
    [1, 2]
    """

    name = "prune_channels"
    kind = "prune-channels"
    needs = Access.WEIGHTS | Access.FEATURES
    source = "Li et al., ICLR 2017, arXiv 1608.08710"
    fraction: float = 0.2
    spread: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.fraction - self.spread <= self.fraction + self.spread <= 1:
            raise UsageError(f"expected fraction - spread and fraction + spread within [0, 1], got {self}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Rebuild the model with zeros in place of the removed units."""
        victim, groups = layered(model, self.name)
        before = dict(victim.tensors())
        changed = before
        for group in groups:
            changed = without(changed, group, self.gone(incoming(before, group.writes), rng))
        return victim.rebuilt(changed)

    def gone(self, sizes: Array, rng: np.random.Generator) -> Array:
        """Positions of the units to remove, the smallest first."""
        return smallest(sizes, self.fraction + rng.uniform(-self.spread, self.spread))


@dataclass(frozen=True)
class FinePrune(TrainingAttack):
    """Remove the units of one layer that are least active on the thief's inputs, then fine-tune all layers.

    ``group`` counts the groups of hidden units from the input, or from the output if negative: -1 is the one that the
    head reads. Removed units stay removed.

    Source: Liu, Dolan-Gavitt, Garg, "Fine-Pruning", RAID 2018, arXiv 1805.12185; parameters after Lukas et al.,
    arXiv 2108.04974, and Guan et al., NeurIPS 2022, arXiv 2210.15427.

    >>> FinePrune.from_key("fine_prune/wrt").fraction
    0.96
    """

    name = "fine_prune"
    kind = "fine-prune"
    needs = Access.WEIGHTS | Access.FEATURES | Access.TRAIN
    source = "Liu et al., RAID 2018, arXiv 1805.12185"
    presets: ClassVar = {
        "wrt": {"fraction": 0.96, "epochs": 10},
        "sac": {"fraction": 0.9, "optimiser": "sgd", "learning_rate": 1e-3},
    }
    fraction: float = 0.5
    group: int = -1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.fraction <= 1:
            raise UsageError(f"expected a fraction within [0, 1], got {self.fraction}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Remove, train, and remove again what the training gave back."""
        victim, groups = layered(model, self.name)
        inputs, labels = self.own(material, rng)
        group = self.chosen(groups)
        active = np.abs(victim.features(inputs)[group.name]).mean(axis=0)
        gone = smallest(active, self.fraction)
        pruned = victim.rebuilt(without(dict(victim.tensors()), group, gone))
        trained = taught(pruned, inputs, labels, self.plan(), rng)
        copy = trained.rebuilt(without(dict(trained.tensors()), group, gone))
        assert isinstance(copy, TrainableModel)
        return counted(copy, len(inputs), self.plan().steps(len(inputs)))

    def chosen(self, groups: tuple[Units, ...]) -> Units:
        """The group that ``group`` names."""
        if not -len(groups) <= self.group < len(groups):
            raise UsageError(
                f"expected a group from {-len(groups)} to {len(groups) - 1}, got {self.group}: "
                "the model has no more groups of hidden units"
            )
        return groups[self.group]


def smallest(values: Array, share: float) -> Array:
    """Positions of the smallest share of the values, smallest first, but never of all of them.

    >>> smallest(np.array([2.0, 1.0, 3.0]), 1.0).tolist()
    [1, 0]
    """
    return np.argsort(values, kind="stable")[: min(round(share * len(values)), len(values) - 1)]
