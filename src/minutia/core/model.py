"""Models: anything that answers probes, and what more access adds."""

from collections.abc import Callable, Iterator, Mapping
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
    """How to train: plain values, so that the plan is part of a recipe's name and of a task's digest."""

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    layers: Literal["all", "last"] = "all"
    reset: Literal["nothing", "last", "everything"] = "nothing"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 0 or self.batch_size < 1 or not self.learning_rate > 0 or not self.temperature > 0:
            raise UsageError(f"expected positive epochs, batch size, learning rate and temperature, got {self}")

    def plain(self) -> dict[str, Any]:
        """The plan as plain data."""
        return dict(self.__dict__)


@runtime_checkable
class TrainableModel(WeightModel, Protocol):
    """A model that can be trained further, or anew from a fresh initialisation."""

    def trained(self, inputs: Array, targets: Array, plan: Plan, seed: int) -> "TrainableModel":
        """A trained copy; targets are labels (n,) or probabilities (n, classes). The seed fixes everything."""
        ...
