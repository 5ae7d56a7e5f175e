"""Small sketches of checkpoints: the same sampled weights of each, and what tells that they were reduced."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from zlib import crc32

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import ModelError
from minutia.core.tensors import Tensors

BUDGET = 2**20
"""Numbers kept of one checkpoint, shared among its tensors."""
LEAST = 256
"""Numbers kept of a tensor at least, where it has as many."""
TABLE, TABLE_ROWS = 2**16, 2048
"""Numbers and rows kept of a table of tokens, whose rows tell what a model was trained on."""
TALL = 6
"""Times as many rows as columns that make a matrix a table."""
BLOCK = 32
"""Neighbours in a row that quantisation gives one scale, or a multiple of them."""
BLOCKS = 16
"""Such blocks looked at in each matrix."""
STEPS = 255
"""Steps of the finest grid, that of 8 bits."""
ON_GRID = 0.1
"""How far from a grid's point, in steps, a number on it may lie."""
ZEROS = 0.1
"""Share of exact zeros from which on a checkpoint is taken to be pruned."""


@dataclass(frozen=True, eq=False)
class Sketch:
    """What is kept of one checkpoint.

    ``layout`` names its tensors with their shapes; ``values`` holds of each some numbers (rows, columns), one row of a
    vector, at places that depend on the seed, the name and the shape alone, so that two of one layout can be compared
    number by number.
    ``zeros`` is the share of exact zeros in matrices and ``grid`` the share of their blocks that lie on a grid of
    8 bits or fewer.
    """

    layout: tuple[tuple[str, tuple[int, ...]], ...]
    values: Mapping[str, Array]
    zeros: float
    grid: float

    @property
    def reduced(self) -> int:
        """0 of whole numbers, 1 pruned, 2 quantised: nothing trained further is made from the latter two."""
        return 2 if self.grid > 0.5 else int(self.zeros > ZEROS)

    @property
    def matrices(self) -> tuple[str, ...]:
        """Names of what has at least two axes."""
        return tuple(name for name, shape in self.layout if len(shape) > 1)


def sketch(source: Tensors, name: str, seed: int) -> Sketch:
    """Read some rows of every tensor, once; ``name`` is what errors call the checkpoint. NaN: ModelError.

    >>> from minutia.core.tensors import Arrays
    >>> draw = np.random.default_rng(0).normal(size=(8, 64))
    >>> found = sketch(Arrays({"w": draw}), "one", 0)
    >>> found.layout, found.values["w"].shape, found.reduced, sketch(Arrays({"w": np.round(draw * 9)}), "", 0).reduced
    ((('w', (8, 64)),), (8, 64), 0, 2)
    """
    layout = tuple(sorted((n, tuple(source.info(n).shape)) for n in source.names if prod(source.info(n).shape)))
    limit = max(LEAST, BUDGET // max(len(layout), 1))
    values, empty, counted, grids = {}, 0, 0, []
    for tensor, shape in layout:
        rng = np.random.default_rng([seed, crc32(tensor.encode()), *shape])
        most = TABLE if len(shape) > 1 and shape[0] >= TALL * prod(shape[1:]) else limit
        rows = _rows(source, tensor, shape, most, rng)
        if not np.isfinite(rows).all():
            raise ModelError(
                f"expected finite weights to compare, got NaN or infinity in {tensor} of {name}: "
                "leave out a checkpoint whose training did not break off cleanly"
            )
        values[tensor] = _some(rows, most, rng)
        if len(shape) > 1:
            empty, counted = empty + int((rows == 0).sum()), counted + rows.size
            grids += [on_grid(block) for block in _blocks(rows)]
    return Sketch(layout, values, empty / max(counted, 1), float(np.mean(grids)) if grids else 0.0)


def _rows(source: Tensors, name: str, shape: tuple[int, ...], limit: int, rng: np.random.Generator) -> Array:
    """Whole rows of a tensor (rows, everything) drawn at random, about as many as hold ``limit`` numbers."""
    if len(shape) < 2:
        return source.read(name).reshape(1, -1)
    width = prod(shape[1:])
    least = TABLE_ROWS if limit == TABLE else 1
    count = min(shape[0], max(least, -(-limit // width)))
    wanted = np.sort(rng.permutation(shape[0])[:count])
    return source.read(name, None if count == shape[0] else wanted).reshape(count, width)


def _some(rows: Array, limit: int, rng: np.random.Generator) -> Array:
    """The rows, or so many of their columns that about ``limit`` numbers are left."""
    count = max(1, limit // len(rows))
    kept = slice(None) if count >= rows.shape[1] else np.sort(rng.choice(rows.shape[1], count, replace=False))
    return np.ascontiguousarray(rows[:, kept], np.float32)


def _blocks(rows: Array) -> Iterator[Array]:
    """Stretches of BLOCK neighbours, evenly spread over the rows; none where rows are shorter."""
    for at in np.unique(np.linspace(0, len(rows) - 1, BLOCKS).astype(int)) if rows.shape[1] >= BLOCK else ():
        yield rows[at, :BLOCK]


def on_grid(block: Array) -> bool:
    """Whether numbers (n,) lie on a grid of at most STEPS equal steps between the least and the largest of them.

    >>> on_grid(np.round(np.random.default_rng(0).normal(size=32) * 40) / 7)
    True
    >>> on_grid(np.random.default_rng(0).normal(size=32))
    False
    """
    low, high = float(block.min()), float(block.max())
    if high <= low:
        return False
    place = (block.astype(np.float64) - low) / (high - low) * np.arange(1, STEPS + 1)[:, None]
    return bool((np.abs(place - np.round(place)).max(axis=1) < ON_GRID).any())


def by_layout(sketches: Sequence[Sketch]) -> list[list[int]]:
    """Places of the checkpoints that have the same tensors, group by group.

    >>> one, two = (Sketch(((name, (2,)),), {}, 0.0, 0.0) for name in "ab")
    >>> by_layout([one, two, one])
    [[0, 2], [1]]
    """
    found: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for at, one in enumerate(sketches):
        found.setdefault(one.layout, []).append(at)
    return list(found.values())
