"""Attacks that train the victim further: fine-tuning, re-training the head or all, another task."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar, cast

import numpy as np

from minutia.core.access import Access, require
from minutia.core.attack import Attack
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import Model, ModelCard, Plan, TrainableModel, WeightModel
from minutia.core.probe import numbered

Copy = TypeVar("Copy", bound=WeightModel)


@dataclass(frozen=True)
class TrainingAttack(Attack):
    """What attacks that train share: how long and how, and which ``share`` of the thief's inputs they use."""

    trains: ClassVar[Literal["all", "last"]] = "all"
    reset: ClassVar[Literal["nothing", "last", "everything"]] = "nothing"
    epochs: int = 5
    learning_rate: float = 1e-3
    optimiser: str = "adam"
    weight_decay: float = 0.0
    schedule: str = "constant"
    batch_size: int = 64
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"expected a share above 0 and at most 1, got {self.share}")

    def plan(self) -> Plan:
        """How to train; UsageError if the parameters cannot work."""
        return Plan(
            self.epochs,
            self.batch_size,
            self.learning_rate,
            self.weight_decay,
            self.trains,
            self.reset,
            optimiser=cast("Literal['adam', 'sgd']", self.optimiser),
            schedule=cast("Literal['constant', 'cosine', 'steps']", self.schedule),
        )

    def own(self, material: Material, rng: np.random.Generator) -> tuple[Array, Array]:
        """The share of the thief's inputs that is used, and the labels he has for them."""
        rows = chosen(len(material.inputs), self.share, rng)
        return material.inputs[rows], material.labels[rows]


@dataclass(frozen=True)
class FineTuning(TrainingAttack):
    """Train the victim further; ``labels`` are the thief's own, or those that the victim answers."""

    needs = Access.TRAIN
    labels: str = "true"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("labels", self.labels, ("true", "victim"))

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Train on the thief's inputs."""
        inputs, labels = self.own(material, rng)
        if self.labels == "victim":
            inputs, labels = labelled(model, inputs)
        copy = taught(model, inputs, labels, self.plan(), rng)
        return counted(copy, len(inputs), self.plan().steps(len(inputs)), len(inputs) * (self.labels == "victim"))


@dataclass(frozen=True)
class FineTuneLast(FineTuning):
    """Fine-tune the last layer (FTLL).

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633; parameters after Lukas et al., arXiv 2108.04974.

    >>> FineTuneLast(epochs=2).plan().layers
    'last'
    """

    name = "fine_tune_last"
    kind = "fine-tune-last"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"
    presets: ClassVar = {
        "wrt": {"epochs": 5, "batch_size": 64},
        "deepjudge": {"epochs": 10, "optimiser": "adam"},
        "adi": {"epochs": 20, "learning_rate": 1e-3},
    }
    trains = "last"


@dataclass(frozen=True)
class FineTuneAll(FineTuning):
    """Fine-tune all layers (FTAL).

    The preset ``adv-tra`` never lowers its rate: its milestones (60, 120, 160) lie behind its 50 epochs.

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633; parameters after Lukas et al., arXiv 2108.04974.

    >>> FineTuneAll.from_key("fine_tune_all/adv-tra").optimiser
    'sgd'
    """

    name = "fine_tune_all"
    kind = "fine-tune-all"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"
    presets: ClassVar = {
        "wrt": {"epochs": 5, "batch_size": 64},
        "deepjudge": {"epochs": 10, "optimiser": "adam"},
        "adi": {"epochs": 20, "learning_rate": 1e-3},
        "adv-tra": {"epochs": 50, "optimiser": "sgd", "learning_rate": 1e-3, "weight_decay": 5e-4},
        "sac": {"optimiser": "sgd", "learning_rate": 5e-4},
    }


@dataclass(frozen=True)
class RetrainLast(FineTuning):
    """Re-initialise the last layer and train it (RTLL).

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633; parameters after Lukas et al., arXiv 2108.04974.

    >>> RetrainLast().kind
    'retrain-last'
    """

    name = "retrain_last"
    kind = "retrain-last"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"
    presets: ClassVar = {"wrt": {"epochs": 10, "labels": "victim"}}
    trains = "last"
    reset = "last"
    epochs: int = 10
    learning_rate: float = 1e-2


@dataclass(frozen=True)
class RetrainAll(FineTuning):
    """Re-initialise the last layer and train all (RTAL).

    Source: Adi et al., USENIX Security 2018, arXiv 1802.04633; parameters after Lukas et al., arXiv 2108.04974.

    >>> RetrainAll().plan().reset
    'last'
    """

    name = "retrain_all"
    kind = "retrain-all"
    source = "Adi et al., USENIX Security 2018, arXiv 1802.04633"
    presets: ClassVar = {
        "wrt": {"epochs": 5, "labels": "victim"},
        "adv-tra": {"epochs": 50, "optimiser": "sgd", "learning_rate": 1e-2, "weight_decay": 5e-4},
    }
    reset = "last"
    epochs: int = 10
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Transfer(TrainingAttack):
    """Move the victim to another task: a new head, and the last layer or all layers trained.

    The task is ``Material.foreign`` where there is one; else classes of the thief's own data, two by two in one.
    Either way the copy answers other classes than the victim, so labels say nothing about it.

    Source: Li et al., "ModelDiff", ISSTA 2021, arXiv 2106.08890; Guan et al., "SAC", NeurIPS 2022, arXiv 2210.15427.

    >>> Transfer(layers="last").key
    "transfer(batch_size=64,epochs=10,layers='last',learning_rate=0.002,optimiser='adam',schedule='constant',share=1.0,weight_decay=0.0)"
    """

    name = "transfer"
    kind = "transfer"
    source = "Li et al., ISSTA 2021, arXiv 2106.08890; Guan et al., NeurIPS 2022, arXiv 2210.15427"
    needs = Access.TRAIN
    renames = True
    # ModelDiff also trains the last half of the layers; SAC moves to ten other classes of foreign data.
    presets: ClassVar = {"modeldiff": {"layers": "all"}, "modeldiff-last": {"layers": "last"}}
    epochs: int = 10
    learning_rate: float = 2e-3
    layers: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("layers", self.layers, ("all", "last"))

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Train a new head, and perhaps the layers below, on the other task."""
        inputs, labels = (material.inputs, material.labels // 2) if material.foreign is None else material.foreign
        rows = chosen(len(inputs), self.share, rng)
        layers = cast("Literal['all', 'last']", self.layers)
        plan = replace(self.plan(), layers=layers, classes=max(2, int(labels.max()) + 1))
        return counted(taught(model, inputs[rows], labels[rows], plan, rng), len(rows), plan.steps(len(rows)))


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a word that a parameter does not know."""
    if value not in allowed:
        raise UsageError(f"expected {name} as {' or '.join(allowed)}, got {value!r}")


def chosen(count: int, share: float, rng: np.random.Generator) -> Array:
    """A share of the rows, drawn; all of them in their order, and nothing drawn, for a share of 1.

    >>> chosen(4, 1.0, np.random.default_rng(0)).tolist(), len(chosen(4, 0.5, np.random.default_rng(0)))
    ([0, 1, 2, 3], 2)
    """
    if share >= 1 or not count:
        return np.arange(count)
    return np.asarray(rng.permutation(count)[: max(1, round(share * count))])


def labelled(model: Model, inputs: Array) -> tuple[Array, Array]:
    """The inputs that a model answers, and the labels that it names."""
    labels = model.ask(numbered(inputs, {})).labels
    if not (labels >= 0).any():
        raise ModelError(f"expected labels from {model.spec}, got none for {len(inputs)} inputs: it has diverged")
    return inputs[labels >= 0], labels[labels >= 0]


def taught(model: Model, inputs: Array, targets: Array, plan: Plan, rng: np.random.Generator) -> TrainableModel:
    """A trained copy; the generator gives the seed."""
    require("an attack that trains", Access.TRAIN, model.spec, model.access)
    assert isinstance(model, TrainableModel)
    return model.trained(inputs, targets, plan, int(rng.integers(2**31)))


def counted(copy: Copy, inputs: int, steps: int, queries: int = 0) -> Copy:
    """Write on the card what it took: inputs trained on, optimiser steps, questions to the victim."""
    effort = {"inputs": float(inputs), "steps": float(steps), "queries": float(queries)}
    copy.card = ModelCard(copy.card.id, copy.card.root, fidelity=effort)
    return copy
