"""Merging: the weights of the victim averaged with those of another model."""

from dataclasses import dataclass

import numpy as np

from minutia.attacks.learn import TrainingAttack, counted, one_of, taught
from minutia.core.access import Access
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Model, TrainableModel, WeightModel


@dataclass(frozen=True)
class Average(TrainingAttack):
    """Average the weights with another model's; ``weight`` is the victim's share.

    ``other`` is a "fine-tuned" copy that the thief trains himself, which keeps accuracy, or his "companion", a model
    of the same architecture that he made without the victim: the average of two strangers rarely works.

    Source: Wortsman et al., "Model soups", ICML 2022, arXiv 2203.05482.

    >>> Average(weight=0.25).weight
    0.25
    """

    name = "average"
    kind = "average"
    needs = Access.WEIGHTS | Access.TRAIN
    source = "Wortsman et al., ICML 2022, arXiv 2203.05482"
    weight: float = 0.5
    other: str = "fine-tuned"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("other", self.other, ("fine-tuned", "companion"))
        if not 0 < self.weight < 1:
            raise UsageError(f"expected a weight between 0 and 1 for the victim, got {self.weight}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Train or take the other model, and rebuild the victim from the averages."""
        assert isinstance(model, WeightModel)
        if self.other == "companion":
            return self.averaged(model, _companion(model, material))
        inputs, labels = self.own(material, rng)
        copy = self.averaged(model, taught(model, inputs, labels, self.plan(), rng))
        assert isinstance(copy, TrainableModel)
        return counted(copy, len(inputs), self.plan().steps(len(inputs)))

    def averaged(self, model: WeightModel, other: WeightModel) -> WeightModel:
        """The victim with ``weight`` of its own and the rest of the other's weights."""
        theirs = dict(other.tensors())
        mixed = {
            name: (self.weight * mine + (1 - self.weight) * theirs[name]).astype(mine.dtype)
            for name, mine in model.tensors()
        }
        return model.rebuilt(mixed)


def _companion(model: WeightModel, material: Material) -> WeightModel:
    """The thief's own model, if there is one of the victim's architecture."""
    other = material.companion
    if not isinstance(other, WeightModel):
        raise UsageError("expected a companion model with open weights, got none: give the material one")
    mine, theirs = ({name: w.shape for name, w in m.tensors()} for m in (model, other))
    if mine != theirs:
        raise UsageError(
            f"expected a companion of the architecture of {model.spec}, got {other.spec} with other tensors: "
            "weights can only be averaged one by one"
        )
    return other
