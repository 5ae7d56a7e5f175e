"""Attacks that train: fine-tuning, re-training the head, distillation, extraction by labels."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from minutia.core.access import Access
from minutia.core.attack import Attack
from minutia.core.digest import Array
from minutia.core.material import Material
from minutia.core.model import Model, ModelCard, Plan, TrainableModel
from minutia.core.probe import numbered


@dataclass(frozen=True)
class _TrainingAttack(Attack):
    """Train a copy on the attacker's inputs, with the attacker's labels unless the attack says otherwise."""

    needs = Access.TRAIN
    layers: ClassVar[Literal["all", "last"]] = "all"
    reset: ClassVar[Literal["nothing", "last", "everything"]] = "nothing"
    epochs: int = 5
    learning_rate: float = 1e-3

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Train, and keep the victim's root on the card: what was learnt from a model descends from it."""
        assert isinstance(model, TrainableModel)
        plan = Plan(self.epochs, learning_rate=self.learning_rate, layers=self.layers, reset=self.reset)
        copy = model.trained(
            material.inputs, self.targets(model, material), self.adapted(plan), int(rng.integers(2**31))
        )
        copy.card = ModelCard(copy.card.id, model.card.root, self.key, (model.card.id,))
        return copy

    def targets(self, model: Model, material: Material) -> Array:
        """What the copy is trained to answer."""
        return material.labels

    def adapted(self, plan: Plan) -> Plan:
        """Last changes to the plan."""
        return plan


@dataclass(frozen=True)
class FineTuneLast(_TrainingAttack):
    """Fine-tune the last layer (FTLL).

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633; parameters after Lukas et al., arXiv 2108.04974.

    >>> FineTuneLast().key
    'fine_tune_last(epochs=5,learning_rate=0.001)'
    """

    name = "fine_tune_last"
    kind = "fine-tune-last"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"
    layers = "last"


@dataclass(frozen=True)
class FineTuneAll(_TrainingAttack):
    """Fine-tune all layers (FTAL).

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633; parameters after Lukas et al., arXiv 2108.04974.

    >>> FineTuneAll(epochs=1).epochs
    1
    """

    name = "fine_tune_all"
    kind = "fine-tune-all"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"


@dataclass(frozen=True)
class RetrainLast(_TrainingAttack):
    """Re-initialise the last layer and train it (RTLL).

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633; parameters after Lukas et al., arXiv 2108.04974.

    >>> RetrainLast().kind
    'retrain-last'
    """

    name = "retrain_last"
    kind = "retrain-last"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"
    layers = "last"
    reset = "last"
    epochs: int = 10
    learning_rate: float = 1e-2


@dataclass(frozen=True)
class Distil(_TrainingAttack):
    """Train a fresh copy on the victim's probabilities at a temperature.

    Source: Hinton, Vinyals, Dean, 2015, arXiv 1503.02531; as an attack in Lukas et al., arXiv 2108.04974.

    >>> Distil().temperature
    3.0
    """

    name = "distil"
    kind = "distil"
    source = "Hinton, Vinyals, Dean, 2015, arXiv 1503.02531"
    reset = "everything"
    keeps_weights = False
    epochs: int = 15
    learning_rate: float = 2e-3
    temperature: float = 3.0

    def targets(self, model: Model, material: Material) -> Array:
        """The victim's softened probabilities."""
        answers = model.ask(numbered(material.inputs, {}))
        scores = answers.scores if answers.scores is not None else np.eye(answers.labels.max() + 1)[answers.labels]
        logits = answers.logits if answers.logits is not None else np.log(np.maximum(scores, 1e-7))
        soft = np.exp((logits - logits.max(axis=1, keepdims=True)) / self.temperature)
        return soft / soft.sum(axis=1, keepdims=True)

    def adapted(self, plan: Plan) -> Plan:
        """The student is compared at the same temperature."""
        return replace(plan, temperature=self.temperature)


@dataclass(frozen=True)
class ExtractLabels(_TrainingAttack):
    """Train a fresh copy on nothing but the labels that the victim answers.

    Source: Tramèr et al., USENIX Security 2016, arXiv 1609.02943; Orekondy et al., CVPR 2019, arXiv 1812.02766.

    >>> ExtractLabels().key
    'extract_labels(epochs=15,learning_rate=0.002)'
    """

    name = "extract_labels"
    kind = "extract-labels"
    source = "Tramèr et al., USENIX Security 2016, arXiv 1609.02943"
    reset = "everything"
    keeps_weights = False
    epochs: int = 15
    learning_rate: float = 2e-3

    def targets(self, model: Model, material: Material) -> Array:
        """The victim's labels."""
        return model.ask(numbered(material.inputs, {})).labels
