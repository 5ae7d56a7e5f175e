"""A small sketch of a checkpoint's hidden units, by which their order is compared when the weights are not at hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from minutia.core.comparison import LEAST, Comparison, Kinship, LayerMatch, Relation
from minutia.core.digest import Array
from minutia.core.errors import FileError, UsageError
from minutia.core.tensors import Tensors
from minutia.methods.weights.kinship import origin
from minutia.methods.weights.order import EXPERTS, H0, UNITS, Kept, Made, joint_p, layers_kept
from minutia.methods.weights.streams import Stream, unit_rows

FORMAT, SKETCHED = "unit-sketch/1", "minutia-sketch"
"""The format, and the key under which a file names it."""
MOST = 2**22
"""Units of a layer at most: places are drawn among so many."""
SIZE = 64
"""Random combinations of the stream's coordinates that are kept of each unit."""
NOTE = "a sketch tells only whether units kept their order: compare the files to see through disguises"


@dataclass(frozen=True, eq=False)
class UnitSketch:
    """What makes hidden units at seeded places, in SIZE combinations of the stream's coordinates, about 2 MB.

    ``layers`` holds per layer and expert the routes (units, SIZE); ``counts`` how many units each has in all. Places
    and combinations depend on the seed, the units and the width alone, never on weights: the test stays exact.

    >>> from minutia.core.tensors import Arrays
    >>> draw = np.random.default_rng(0).normal
    >>> tensors = Arrays({"wte.weight": draw(size=(9, 4)), "h.0.mlp.fc1.weight": draw(size=(20, 4)),
    ...                   "h.0.mlp.fc2.weight": draw(size=(4, 20))})
    >>> sketch = UnitSketch.of(Stream.of(tensors, "a model"), seed=3)
    >>> sketch.layers[0][0][0].shape, compare_sketches(sketch, sketch).null
    ((20, 64), 'exact')

    Source: the test is that of Zhu, Ahmed, Kuditipudi, Liang, ICML 2025, arXiv 2502.12292; for the projection W. B.
    Johnson and J. Lindenstrauss, Contemporary Mathematics 26, 1984.
    """

    seed: int
    width: int
    counts: tuple[tuple[int, ...], ...]
    layers: tuple[tuple[tuple[Array, ...], ...], ...]

    @classmethod
    def of(cls, stream: Stream, seed: int) -> Self:
        """Read the rows that the seed draws; UsageError where there is no transformer's MLP, ModelError for NaN."""
        if not stream.blocks:
            raise UsageError(
                f"expected a transformer to sketch, got layers of another kind in {stream.name}: compare the files"
            )
        turn = np.random.default_rng([seed, stream.width]).standard_normal((stream.width, SIZE), np.float32)
        turn /= np.sqrt(SIZE)
        blocks = [block[:EXPERTS] for block in stream.blocks]
        layers = tuple(
            tuple(
                tuple(np.asarray(rows @ turn, np.float32) for rows in stream.reads(mlp, places(seed, mlp.units)))
                for mlp in block
            )
            for block in blocks
        )
        return cls(seed, stream.width, tuple(tuple(mlp.units for mlp in block) for block in blocks), layers)

    def arrays(self) -> dict[str, Array]:
        """Named arrays, to be stored with ``metadata``."""
        return {
            f"{layer}.{expert}.{route}": rows
            for layer, block in enumerate(self.layers)
            for expert, routes in enumerate(block)
            for route, rows in enumerate(routes)
        }

    def metadata(self) -> dict[str, str]:
        """What the arrays do not tell, as texts."""
        counts = ",".join(" ".join(map(str, block)) for block in self.counts)
        return {SKETCHED: FORMAT, "seed": str(self.seed), "width": str(self.width), "units": counts}

    @classmethod
    def read(cls, source: Tensors, metadata: Mapping[str, str], name: str) -> Self:
        """Build it from what was stored; FileError where that is no sketch of this format."""
        try:
            counts = tuple(tuple(map(int, block.split())) for block in metadata["units"].split(","))
            if not all(0 < count <= MOST for block in counts for count in block) or len(counts) > len(source.names):
                raise ValueError
            layers = tuple(
                tuple(_routes(source, f"{layer}.{expert}") for expert in range(len(block)))
                for layer, block in enumerate(counts)
            )
            found = cls(int(metadata["seed"]), int(metadata["width"]), counts, layers)
            sound = metadata[SKETCHED] == FORMAT and found.seed >= 0 and found.width > 0 and found._fits()
        except (KeyError, ValueError):
            sound = False
        if not sound:
            raise FileError(f"expected a sketch of the format {FORMAT} in {name}, got another: make it anew")
        return found

    def _fits(self) -> bool:
        """Whether every array has the shape that was told, and finite numbers."""
        parts = [
            len(part) == min(count, UNITS) and part.shape[1:] == (SIZE,) and bool(np.isfinite(part).all())
            for counts, block in zip(self.counts, self.layers, strict=True)
            for count, routes in zip(counts, block, strict=True)
            for part in routes
        ]
        return bool(parts) and all(parts) and all(routes for block in self.layers for routes in block)


def _routes(source: Tensors, prefix: str) -> tuple[Array, ...]:
    return tuple(source.read(f"{prefix}.{at}") for at in range(3) if f"{prefix}.{at}" in source.names)


def places(seed: int, units: int) -> Array:
    """The places that a seed draws among so many units, in order.

    >>> places(0, 3).tolist()
    [0, 1, 2]
    """
    return np.sort(np.random.default_rng([seed, units]).permutation(units)[:UNITS])


def compare_sketches(first: UnitSketch, second: UnitSketch, alpha: float = 0.01) -> Comparison:
    """The exact test of the order of units, from two sketches of one seed.

    H0: the second started from a random initialisation of its own, drawn unit by unit, and its training treats units
    alike. *Unrelated* is never said, for a disguised copy escapes. UsageError for sketches of different seeds.
    """
    if first.seed != second.seed:
        raise UsageError(f"expected two sketches of one seed, got {first.seed} and {second.seed}: make one anew")
    if not 0 < alpha < 1:
        raise UsageError(f"expected an alpha between 0 and 1, got {alpha}")
    if first.width != second.width:
        return Comparison("undecided", 1.0, "none", "", "", alpha, notes=("the streams have different widths", NOTE))
    mine, theirs = ([_made(sketch, at) for at in range(len(sketch.layers))] for sketch in (first, second))
    groups, tries = layers_kept(mine, theirs, len(theirs), np.random.default_rng(first.seed))
    tests, strip = (("unit order", joint_p(groups, tries)),), []
    for cell in dict.fromkeys((kept.first, kept.second) for kept in groups):
        inside = [kept for kept in groups if (kept.first, kept.second) == cell]
        share = sum(kept.kept for kept in inside) / max(1, sum(kept.units for kept in inside))
        sides = zip((first, second), cell, strict=True)
        near = [np.concatenate([_rows(sketch, at, kept) for kept in inside]) for sketch, at in sides]
        strip.append(LayerMatch(*cell, f"layer {cell[0]}", share, Kinship.of(*near) if len(near[0]) else None))
    p, merged = max(LEAST, tests[0][1]), None
    relation: Relation = "undecided"
    if p <= alpha:
        relation, merged = origin(strip)
    return Comparison(relation, p, "exact", "unit order", H0, alpha, tests, tuple(strip), merged, notes=(NOTE,))


def _rows(sketch: UnitSketch, layer: int, kept: Kept) -> Array:
    """The first route of the units that kept their place."""
    at = np.searchsorted(places(sketch.seed, sketch.counts[layer][kept.expert]), kept.places)
    return sketch.layers[layer][kept.expert][0][at]


def _made(sketch: UnitSketch, layer: int) -> Sequence[Made]:
    """The units of a layer by expert, at their places, of length 1."""
    pairs = zip(sketch.counts[layer], sketch.layers[layer], strict=True)
    return [(places(sketch.seed, count), [unit_rows(rows) for rows in routes]) for count, routes in pairs]
