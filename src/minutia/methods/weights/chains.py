"""Networks that are no transformers, from named tensors: groups of units that correspond, and plain chains."""

from itertools import pairwise
from math import prod

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import ModelError
from minutia.core.tensors import Tensors
from minutia.methods.weights.links import OUTSIDE, Link, Links
from minutia.methods.weights.roles import Group, Roles, weight_matrices

LARGEST = 2**26
"""Numbers in a chain up to which its units are matched in any order: all of them are held at once."""


def corresponding(first: Roles, second: Roles) -> list[tuple[Group, Group]]:
    """Pairs of groups to compare: of the same name, or by their place where no name is shared.

    >>> one = Roles(groups=(Group("a", 8), Group("b", 6)))
    >>> [(a.tensor, b.tensor) for a, b in corresponding(one, Roles(groups=(Group("b", 6),)))]
    [('b', 'b')]
    """
    named = {group.tensor: group for group in second.groups}
    if not any(group.tensor in named for group in first.groups):
        return list(zip(first.groups, second.groups, strict=False))
    return [(group, named[group.tensor]) for group in first.groups if group.tensor in named]


def finite_rows(source: Tensors, group: Group, name: str) -> Array:
    """Incoming weights (units, everything) of a group; NaN or infinity: ModelError."""
    rows = group.rows(source)
    if not np.isfinite(rows).all():
        raise ModelError(
            f"expected finite weights to compare units by, got NaN or infinity in {group.tensor} of {name}: "
            "compare a checkpoint whose training did not break down"
        )
    return rows


def chain(source: Tensors) -> Links | None:
    """The links of a network in which every layer reads all of the layer before and nothing else.

    None for any other: where units are added to others, names and shapes do not tell which. All tensors are read,
    LARGEST numbers at most.

    >>> from minutia.core.tensors import Arrays
    >>> found = chain(Arrays({"0.weight": np.ones((8, 3)), "2.weight": np.ones((6, 8)), "4.weight": np.ones((2, 6))}))
    >>> [link.weights.shape for link in found.links]
    [(8, 1, 3), (6, 8, 1), (2, 6, 1)]
    """
    found = weight_matrices({name: tuple(source.info(name).shape) for name in source.names})
    plain = len(found) > 2 and all(blocks == 1 for *_, blocks in found)
    pairs = list(pairwise(found))
    if not plain or any(later[3] % before[2] for before, later in pairs) or _skips(source, found):
        return None
    if sum(prod(source.info(name).shape) for name, *_ in found) > LARGEST:
        return None
    links, before = [], 1
    for at, (name, axis, units, _, _) in enumerate(found):
        weights = np.moveaxis(source.read(name).astype(np.float64), axis, 0).reshape(units, before, -1)
        last = at + 1 == len(found)
        links.append(Link(at - 1 if at else OUTSIDE, OUTSIDE if last else at, weights))
        before = units
    return Links(tuple(links), (True,) * (len(found) - 1)).normed()


def _skips(source: Tensors, found: list[tuple[str, int, int, int, int]]) -> bool:
    """Whether layers may be added to others: names of blocks within blocks, or of recurrent layers."""
    inside = any(name.count(".") > 2 or "recurrent" in name for name in source.names)
    names = (name.lower() for name, *_ in found)
    return inside or any(word in name for name in names for word in ("deconv", "downsample", "shortcut", "gru", "lstm"))
