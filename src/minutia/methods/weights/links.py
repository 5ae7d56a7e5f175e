"""Links: a network's weights by hidden unit, free of batch norms and of the units' scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import ModelError
from minutia.core.units import LayeredModel, Slot, Units, folded

OUTSIDE = -1
"""Stands for the input where a link comes from, and for the output where it goes to."""


@dataclass(frozen=True, eq=False)
class Link:
    """One weight between two groups of hidden units: ``weights`` (units of target, units of source, entries).

    From the input there is one unit, whose entries are everything that is read; to the output one row per class.
    """

    source: int
    target: int
    weights: Array


@dataclass(frozen=True, eq=False)
class Links:
    """All links of a network; ``straight`` tells the groups whose units can be scaled (ReLU) but not change sign."""

    links: tuple[Link, ...]
    straight: tuple[bool, ...]

    @classmethod
    def of(cls, model: LayeredModel, groups: Sequence[Units]) -> Self:
        """Read a model's weights: batch norms folded in, every scalable unit's incoming weights of length 1.

        Weights that are NaN or infinite: ModelError.
        """
        weights = dict(model.tensors())
        broken = [name for name, w in weights.items() if not np.isfinite(w).all()]
        if broken:
            raise ModelError(
                f"expected finite weights to compare units by, got NaN or infinity in {broken[0]} of {model.spec}: "
                "open a model whose training did not break down"
            )
        for group in groups:
            for norm in group.norms:
                weights |= folded(weights, norm)
        found = cls(tuple(_links(weights, groups)), tuple(group.homogeneous for group in groups))
        return found.normed()

    @property
    def order(self) -> tuple[int, ...]:
        """Groups in an order in which each is reached from the input or from earlier ones."""
        known: list[int] = []
        left = list(range(len(self.straight)))
        while reached := [g for g in left if self.into(g, (OUTSIDE, *known))]:
            known.append(reached[0])
            left.remove(reached[0])
        return tuple(known)

    def into(self, target: int, sources: Sequence[int]) -> list[int]:
        """Places of the links into a group that come from these sources."""
        return [i for i, link in enumerate(self.links) if link.target == target and link.source in sources]

    def out_of(self, source: int) -> list[int]:
        """Places of the links that read a group."""
        return [i for i, link in enumerate(self.links) if link.source == source]

    def normed(self) -> Self:
        """Move every scalable unit's scale into what reads it."""
        known = [OUTSIDE]
        links = list(self.links)
        for group in self.order:
            rows = [links[i].weights.reshape(len(links[i].weights), -1) for i in self.into(group, known)]
            size = np.linalg.norm(np.concatenate(rows, axis=1), axis=1)
            known.append(group)
            if not self.straight[group]:
                continue
            size = np.where(size > 0, size, 1.0)
            for i, link in enumerate(links):
                if link.target == group:
                    link = replace(link, weights=link.weights / size[:, None, None])
                if link.source == group:
                    link = replace(link, weights=link.weights * size[None, :, None])
                links[i] = link
        return replace(self, links=tuple(links))

    def arrays(self, name: str) -> dict[str, Array]:
        """What is stored, in half precision: matching needs no more; every name begins with ``name``."""
        ends = np.array([[link.source, link.target] for link in self.links], np.int64).reshape(-1, 2)
        kept = {f"{name}.{i}": _half(link.weights) for i, link in enumerate(self.links)}
        return {f"{name}.ends": ends, f"{name}.straight": np.array(self.straight), **kept}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], name: str) -> "Links | None":
        """The inverse of ``arrays``; None where nothing was read."""
        ends = arrays.get(f"{name}.ends")
        if ends is None:
            return None
        found = (np.asarray(arrays[f"{name}.{i}"], dtype=np.float64) for i in range(len(ends)))
        links = tuple(Link(int(s), int(t), w) for (s, t), w in zip(ends, found, strict=True))
        return cls(links, tuple(bool(s) for s in arrays[f"{name}.straight"]))


def _half(weights: Array) -> Array:
    """Half precision at a scale of its own: a link's scale does not matter, and huge numbers would overflow."""
    largest = np.abs(weights).max(initial=0.0)
    return np.asarray(weights / (largest or 1.0), dtype=np.float16)


def _links(weights: Mapping[str, Array], groups: Sequence[Units]) -> list[Link]:
    """Every weight matrix that makes or reads hidden units, once."""
    readers = {s.tensor: (place, s) for place, group in enumerate(groups) for s in group.reads}
    found, seen = [], set[str]()
    for place, group in enumerate(groups):
        for slot in group.writes:
            if weights[slot.tensor].ndim < 2:
                continue
            seen.add(slot.tensor)
            source, read = readers.get(slot.tensor, (OUTSIDE, None))
            found.append(Link(source, place, _by_units(weights[slot.tensor], slot, read)))
    for tensor, (place, slot) in readers.items():
        if tensor not in seen and weights[tensor].ndim > 1:
            found.append(Link(place, OUTSIDE, _by_units(weights[tensor], None, slot)))
    return found


def _by_units(tensor: Array, made: Slot | None, read: Slot | None) -> Array:
    """A tensor as (units made, units read, entries); without a slot one row per output, or one unit for all inputs."""
    array = np.asarray(tensor, dtype=np.float64)
    if made is None or read is None:
        slot = made or read
        assert slot is not None
        rows = slot.rows(array)
        if made is not None:
            return rows[:, None, :]
        return np.moveaxis(rows.reshape(len(rows), slot.repeat, -1), 2, 0)
    both = np.moveaxis(array, (made.axis, read.axis), (0, 1))
    return both.reshape(len(both), both.shape[1] // read.repeat, -1)
