"""Named tensors: what a checkpoint is to everything that reads weights and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from minutia.core.digest import Array


class Shaped(Protocol):
    """Anything with a shape."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, first axis first."""
        ...


class Tensors(Protocol):
    """A checkpoint: named tensors, of which rows are read when they are asked for."""

    @property
    def names(self) -> Sequence[str]:
        """Names in stored order."""
        ...

    def info(self, name: str) -> Shaped:
        """Shape of a tensor."""
        ...

    def read(self, name: str, rows: slice | Array | None = None) -> Array:
        """The tensor, or some rows of its first axis, as float32."""
        ...


@dataclass(frozen=True, eq=False)
class Arrays:
    """Named tensors in memory, read like a checkpoint.

    >>> held = Arrays({"w": np.arange(4).reshape(2, 2)})
    >>> held.names, held.info("w").shape, held.read("w", np.array([1])).tolist()
    (('w',), (2, 2), [[2.0, 3.0]])
    """

    arrays: Mapping[str, Array]

    @property
    def names(self) -> tuple[str, ...]:
        """Names in stored order."""
        return tuple(self.arrays)

    def info(self, name: str) -> Array:
        """The tensor itself, which has a shape."""
        return np.asarray(self.arrays[name])

    def read(self, name: str, rows: slice | Array | None = None) -> Array:
        """The tensor, or some of its rows, as float32."""
        array = np.asarray(self.arrays[name])
        return np.asarray(array if rows is None else array[rows], dtype=np.float32)
