"""Hidden units: which tensors hold one and the same group of them, so that weights can be read and changed by unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from minutia.core.digest import Array
from minutia.core.model import WeightModel


@dataclass(frozen=True)
class Slot:
    """Where units lie in a tensor: along ``axis``, ``repeat`` consecutive entries per unit.

    ``repeat`` is above 1 where a flattened image is read: each channel then owns height x width columns.
    ``scales`` tells the tensors that carry a unit's output scale: with a norm behind the layer those are the norm's.
    """

    tensor: str
    axis: int
    repeat: int = 1
    scales: bool = True


@dataclass(frozen=True)
class Norm:
    """A batch norm behind a layer, by tensor names; ``into`` is the weight (and bias, "" if none) it folds into."""

    scale: str
    shift: str
    mean: str
    variance: str
    into: str
    bias: str
    epsilon: float


@dataclass(frozen=True)
class Units:
    """One group of ``count`` hidden units (neurons or channels) whose order does not matter to the function.

    ``writes`` are the slots that make the units, ``reads`` those that use them. ``homogeneous`` says that nothing but
    positively homogeneous operations (ReLU, pooling, flattening) lie between, so that c * writes and reads / c is the
    same function. Layers joined by an addition share one group.
    """

    name: str
    count: int
    writes: tuple[Slot, ...]
    reads: tuple[Slot, ...]
    homogeneous: bool = True
    norms: tuple[Norm, ...] = ()


@runtime_checkable
class LayeredModel(WeightModel, Protocol):
    """A model whose hidden units are open (``Access.FEATURES``)."""

    def units(self) -> tuple[Units, ...]:
        """Groups of hidden units from the input to the output; groups of which too little is known are left out."""
        ...

    def features(self, inputs: Array) -> Mapping[str, Array]:
        """What each group's readers see: group name -> (n, count), the mean over positions of every unit."""
        ...
