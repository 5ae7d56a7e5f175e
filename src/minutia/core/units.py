"""Hidden units: which tensors hold one and the same group of them, so that weights can be read and changed by unit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.model import Model, WeightModel


@dataclass(frozen=True)
class Slot:
    """Where units lie in a tensor: along ``axis``, ``repeat`` consecutive entries per unit.

    ``repeat`` is above 1 where a flattened image is read: each channel then owns height x width columns.
    ``scales`` tells the tensors that carry the scale of what a unit puts out, or of what is read from it; with a norm
    behind a layer it is the norm's scale and shift that do, and not the layer's weight.
    """

    tensor: str
    axis: int
    repeat: int = 1
    scales: bool = True

    def entries(self, units: Array) -> Array:
        """Positions along the axis that belong to these units, unit by unit.

        >>> Slot("w", axis=1, repeat=2).entries(np.array([2, 0])).tolist()
        [4, 5, 0, 1]
        """
        return np.asarray((np.asarray(units)[:, None] * self.repeat + np.arange(self.repeat)).ravel())

    def rows(self, array: Array) -> Array:
        """The tensor with one row per unit (count, …): everything in it that belongs to the unit.

        >>> Slot("w", axis=1, repeat=2).rows(np.arange(8).reshape(2, 4)).tolist()
        [[0, 4, 1, 5], [2, 6, 3, 7]]
        """
        front = np.moveaxis(array, self.axis, 0)
        return front.reshape(front.shape[0] // self.repeat, -1)


@dataclass(frozen=True)
class Norm:
    """A batch norm behind a layer, by tensor names; ``into`` is the weight (and bias, "" if none) it folds into.

    The layer's outputs lie along the first axis of ``into``, and nothing but the norm reads them.
    """

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

    ``writes`` are the slots that make the units, ``reads`` those that use them; a norm in between writes. Layers
    joined by an addition share one group. ``homogeneous`` says that c * writes that scale and reads that scale / c are
    the same function, for every c > 0: only positively homogeneous operations (ReLU, pooling, flattening) lie between.
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
        """What each group's last reader sees: group name -> (n, count), the mean over positions of every unit."""
        ...


def layered(model: Model, what: str) -> tuple[LayeredModel, tuple[Units, ...]]:
    """The model with its groups of hidden units; one in which none are understood is refused."""
    groups = model.units() if isinstance(model, LayeredModel) else ()
    if not isinstance(model, LayeredModel) or not groups:
        raise UsageError(
            f"expected hidden units to work on for {what}, got none in {model.spec}: it has no hidden layers, "
            "or only such as are not understood"
        )
    return model, groups


def permuted(weights: Mapping[str, Array], group: Units, order: Array) -> dict[str, Array]:
    """Put the units of a group into another order (count,): unit ``order[i]`` becomes unit i, everywhere.

    >>> both = Units("h", 2, (Slot("w", 0),), (Slot("v", 1),))
    >>> found = permuted({"w": np.array([[1], [2]]), "v": np.array([[3, 4]])}, both, np.array([1, 0]))
    >>> found["w"].tolist(), found["v"].tolist()
    ([[2], [1]], [[4, 3]])
    """
    changed = dict(weights)
    for slot in (*group.writes, *group.reads):
        changed[slot.tensor] = changed[slot.tensor].take(slot.entries(order), axis=slot.axis)
    return changed


def rescaled(weights: Mapping[str, Array], group: Units, factors: Array) -> dict[str, Array]:
    """Multiply what makes each unit by its positive factor (count,), and divide what reads it.

    >>> both = Units("h", 2, (Slot("w", 0),), (Slot("v", 1),))
    >>> found = rescaled({"w": np.array([[1.0], [2.0]]), "v": np.array([[3.0, 4.0]])}, both, np.array([2.0, 0.5]))
    >>> found["w"].tolist(), found["v"].tolist()
    ([[2.0], [1.0]], [[1.5, 8.0]])
    """
    changed = dict(weights)
    for slots, by in ((group.writes, factors), (group.reads, 1 / factors)):
        for slot in slots:
            if slot.scales:
                before = changed[slot.tensor]
                along = np.repeat(by, slot.repeat).reshape(-1, *(1,) * (before.ndim - slot.axis - 1))
                changed[slot.tensor] = (before * along).astype(before.dtype)
    return changed


def without(weights: Mapping[str, Array], group: Units, gone: Array) -> dict[str, Array]:
    """Zero everything that makes or reads these units: the function is that of a network without them.

    >>> both = Units("h", 2, (Slot("w", 0),), (Slot("v", 1),))
    >>> found = without({"w": np.array([[1], [2]]), "v": np.array([[3, 4]])}, both, np.array([0]))
    >>> found["w"].tolist(), found["v"].tolist()
    ([[0], [2]], [[0, 4]])
    """
    changed = dict(weights)
    for slot in (*group.writes, *group.reads):
        array = np.moveaxis(changed[slot.tensor].copy(), slot.axis, 0)
        array[slot.entries(gone)] = 0
        changed[slot.tensor] = np.moveaxis(array, 0, slot.axis)
    return changed


def folded(weights: Mapping[str, Array], norm: Norm) -> dict[str, Array]:
    """The tensors that change when a norm is folded: scale * (w x + b - mean) / deviation + shift becomes w' x + b'.

    >>> names = Norm("scale", "shift", "mean", "variance", into="w", bias="b", epsilon=0.0)
    >>> before = {"w": [[3.0]], "b": [5.0], "scale": [2.0], "shift": [1.0], "mean": [1.0], "variance": [4.0]}
    >>> after = folded({name: np.array(value) for name, value in before.items()}, names)
    >>> [(name, after[name].tolist()) for name in ("w", "b", "shift")]
    [('w', [[3.0]]), ('b', [5.0]), ('shift', [0.0])]
    """
    scale, shift, mean, variance = (
        weights[name].astype(np.float64) for name in (norm.scale, norm.shift, norm.mean, norm.variance)
    )
    layer = weights[norm.into]
    gain = scale / np.sqrt(variance + norm.epsilon)
    rest = shift - mean * gain
    changed = {norm.into: layer * gain.reshape(-1, *(1,) * (layer.ndim - 1))}
    if norm.bias:
        changed[norm.bias], rest = weights[norm.bias] * gain + rest, np.zeros_like(rest)
    still = {norm.scale: np.ones_like(gain), norm.mean: np.zeros_like(gain)}
    changed |= {**still, norm.shift: rest, norm.variance: np.full_like(gain, 1 - norm.epsilon)}
    return {name: value.astype(weights[name].dtype) for name, value in changed.items()}


def incoming(weights: Mapping[str, Array], slots: Iterable[Slot]) -> Array:
    """Sum of the absolute weights (count,) over the slots that are no vectors.

    >>> incoming({"w": np.array([[1, -2], [3, 4]]), "b": np.array([9, 9])}, [Slot("w", 0), Slot("b", 0)]).tolist()
    [3.0, 7.0]
    """
    rows = [slot.rows(weights[slot.tensor]) for slot in slots if weights[slot.tensor].ndim > 1]
    return np.asarray(np.sum([np.abs(r).sum(axis=1, dtype=np.float64) for r in rows], axis=0))
