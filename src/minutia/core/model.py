"""Models: anything that answers probes, and what more access adds."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import UsageError

if TYPE_CHECKING:
    from minutia.core.answers import Answers
    from minutia.core.probe import ProbeSet


@dataclass(frozen=True)
class ModelCard:
    """Who a model is: ``root`` names one training from scratch, the unit in which nulls are counted.

    ``fidelity`` is what an attack cost: accuracy lost, agreement kept, data, steps, seconds.
    """

    id: str
    root: str
    recipe: str = ""
    parents: tuple[str, ...] = ()
    fidelity: Mapping[str, float] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The card as plain data for headers and JSON."""
        return {
            "id": self.id,
            "root": self.root,
            "recipe": self.recipe,
            "parents": list(self.parents),
            "fidelity": {k: float(v) for k, v in sorted(self.fidelity.items())},
        }

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> "ModelCard":
        """Read a card back; the inverse of ``plain``.

        >>> card = ModelCard("a", "r", parents=("b",))
        >>> ModelCard.from_plain(card.plain()) == card
        True
        """
        return cls(data["id"], data["root"], data["recipe"], tuple(data["parents"]), dict(data["fidelity"]))


@runtime_checkable
class Model(Protocol):
    """Anything that answers probes: synchronous and batch-first outside, whatever it does inside."""

    spec: str
    card: ModelCard
    access: Access

    def ask(self, probes: "ProbeSet") -> "Answers":
        """Answer every probe, in order; rows that brought nothing carry a status that says so."""
        ...


@runtime_checkable
class GradientModel(Model, Protocol):
    """A model that can be differentiated with respect to its input."""

    def linearise(self, inputs: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Logits (n, classes) and the pull-back: d(objective)/d(logits) -> d(objective)/d(inputs)."""
        ...


@runtime_checkable
class WeightModel(Model, Protocol):
    """A model whose weights are open."""

    def tensors(self) -> Iterator[tuple[str, Array]]:
        """Stream (name, array) in the order of the architecture."""
        ...

    def rebuilt(self, weights: Mapping[str, Array]) -> "WeightModel":
        """The same architecture with these weights; the original is untouched."""
        ...


@dataclass(frozen=True)
class Plan:
    """How to train: plain values, so that the plan is part of a recipe's name and of a task's digest.

    ``momentum`` is that of sgd. ``classes`` replaces the last layer by a fresh one with so many outputs.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    layers: Literal["all", "last"] = "all"
    reset: Literal["nothing", "last", "everything"] = "nothing"
    temperature: float = 1.0
    optimiser: Literal["adam", "sgd"] = "adam"
    momentum: float = 0.9
    schedule: Literal["constant", "cosine", "steps"] = "constant"
    classes: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or not self.learning_rate > 0 or not self.temperature > 0:
            raise UsageError(f"expected positive epochs, batch size, learning rate and temperature, got {self}")
        if self.optimiser not in ("adam", "sgd") or self.schedule not in ("constant", "cosine", "steps"):
            raise UsageError(f"expected optimiser adam or sgd and schedule constant, cosine or steps, got {self}")
        if not 0 <= self.momentum < 1 or self.classes < 0 or self.classes == 1:
            raise UsageError(f"expected momentum in [0, 1) and 2 or more classes (0: as they are), got {self}")

    def steps(self, inputs: int) -> int:
        """Optimiser steps for this many inputs.

        >>> Plan(epochs=2, batch_size=64).steps(100)
        4
        """
        return self.epochs * -(-inputs // self.batch_size)

    def rate_at(self, progress: float) -> float:
        """The learning rate after a share of the epochs.

        Constant, half a cosine down to 0, or times 0.2 after a third, seven twelfths and five sixths of the epochs (20,
        35 and 50 of 60).

        >>> Plan(learning_rate=1.0, schedule="steps").rate_at(0.5)
        0.2
        """
        if self.schedule == "cosine":
            return self.learning_rate * (1 + math.cos(math.pi * progress)) / 2
        if self.schedule == "steps":
            return self.learning_rate * 0.2 ** sum(progress >= at - 1e-9 for at in (1 / 3, 7 / 12, 5 / 6))
        return self.learning_rate

    def plain(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dict(self.__dict__)


@dataclass(frozen=True, eq=False)
class Steer:
    """Pull a group of hidden units towards ``targets`` (n, count) while training: weight * mean squared distance.

    What is pulled is what ``LayeredModel.features`` shows of the group ``units``.
    """

    units: str
    targets: Array
    weight: float = 1.0


@runtime_checkable
class TrainableModel(WeightModel, Protocol):
    """A model that can be trained further, or anew from a fresh initialisation."""

    def trained(
        self, inputs: Array, targets: Array, plan: Plan, seed: int, *, steer: Steer | None = None
    ) -> "TrainableModel":
        """A trained copy; targets are labels (n,) or probabilities (n, classes). The seed fixes everything."""
        ...


@runtime_checkable
class JointlyTrainable(TrainableModel, Protocol):
    """A model of which many can be trained at a time in less time than one after the other."""

    joint: bool

    def trained_many(
        self, inputs: Array, targets: Array, plan: Plan, seeds: Sequence[int]
    ) -> "Sequence[TrainableModel]":
        """One fresh training per seed; a seed's weights do not depend on the others in the call."""
        ...
