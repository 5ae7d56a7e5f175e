"""Who was made from whom among many checkpoints: trees with support for each edge and its direction."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.tensors import Tensors
from minutia.methods.weights.comparison import Comparison, compare
from minutia.methods.weights.forest_direction import Relations
from minutia.methods.weights.forest_rooting import Rooted, rooted
from minutia.methods.weights.forest_sketch import Sketch, by_layout, sketch

SCHEMA = "minutia.lineage/1"
Kind = Literal["derived", "average", "quantised", "pruned"]
ALIKE = 0.1
"""Cosine of weights in place, median over matrices, from which on two checkpoints are compared further."""
HOLDS = 0.95
"""Slope from which on one checkpoint holds the other whole; decay while it was tuned takes some."""
CLOSE = 0.8
"""Cosine below which nobody is taken for the other's parent: a start in common is nearer at hand."""
DRAWS = 50
"""Bootstrap draws of tensors."""
SUPPORT = 0.9
"""Share of draws, weighed by where the root may lie, from which on an edge and its direction are supported; set on
forests 0 to 3 and 10 to 19 of benchmarks.lineage_forests."""
MOST = 200
"""Checkpoints at most."""
COMMON = "shared ancestor or initialisation"


@dataclass(frozen=True)
class Edge:
    """``child`` was made from ``parent``.

    ``distance`` is the sine between their weights, ``support`` the share of bootstrap draws with this edge whichever
    way it points, ``direction`` how sure its direction is, ``p_value`` that of the comparison of the two (H0:
    independent trainings). ``share`` is the parent's in an average. An edge that is not ``supported`` is a guess.
    """

    parent: str
    child: str
    kind: Kind
    distance: float
    support: float
    direction: float
    supported: bool
    p_value: float
    share: float = 1.0


@dataclass(frozen=True)
class Forest:
    """What many checkpoints are to each other.

    ``trees`` are names of those that descend from one root, the root first; ``roots`` have no parent among those
    given. ``common`` are groups of roots that share an initialisation, or an ancestor which is not among them: no
    parent and child. ``rests_on`` says in words where the directions come from.
    """

    names: tuple[str, ...]
    edges: tuple[Edge, ...]
    roots: tuple[str, ...]
    trees: tuple[tuple[str, ...], ...]
    common: tuple[tuple[str, ...], ...]
    alpha: float
    rests_on: str
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 where an edge is supported, 3 where edges were found and none is, 1 where there are none."""
        return 1 if not self.edges else 0 if any(edge.supported for edge in self.edges) else 3

    def plain(self) -> dict[str, Any]:
        """All of it as lists, dictionaries, texts and numbers for JSON."""
        return {"schema": SCHEMA, "relation_of_common": COMMON, **asdict(self)}


RESTS_ON = (
    "Directions rest on weight statistics (decay of rows of tokens without use, growth of rows that changed, scales of "
    "norms that left 1, lengths), on what cannot be a parent (quantised copies, averages of two others), and on the "
    "shape of the tree, where any model is taken to be as likely as another to be built upon. Each tree has one root, "
    "so that evidence is pooled over its edges."
)


def lineage(named: Mapping[str, Tensors], *, seed: int = 0, alpha: float = 0.01, draws: int = DRAWS) -> Forest:
    """Find who was made from whom among checkpoints, by name.

    Every checkpoint is read once, into a sketch of sampled weights. Those of one layout whose weights are alike in
    place are put into a tree by the angles between them: averages of two others first, then the cheapest
    arborescence for each possible root, and all roots weighed by weight statistics and by the shape of the tree.
    ``compare`` confirms each edge at ``alpha`` divided by the number of checkpoints, which no tree has more edges
    than; one that is not confirmed is left out and named in the notes. Support is by ``draws`` bootstrap
    draws of tensors. UsageError for fewer than 2 checkpoints or more than MOST, ModelError for NaN weights.

    >>> from minutia.core.tensors import Arrays
    >>> draw = np.random.default_rng(0).normal
    >>> sizes = {"0.weight": (32, 9), "2.weight": (32, 32), "4.weight": (3, 32)}
    >>> base = {name: draw(size=size) for name, size in sizes.items()}
    >>> half = {name: np.round(value * 2) / 2 for name, value in base.items()}
    >>> found = lineage({"base": Arrays(base), "half": Arrays(half)})
    >>> [(edge.parent, edge.child, edge.kind, edge.supported) for edge in found.edges]
    [('base', 'half', 'quantised', True)]

    Source: the arborescence after Horwitz, Shul, Hoshen, "Unsupervised Model Tree Heritage Recovery", ICLR 2025, arXiv
    2405.18432; the likelihood of a root by the shape of its tree after Shah and Zaman, "Rumors in a Network", IEEE
    Transactions on Information Theory 57(8), 2011. Averages, the signs of direction and their pooling are ours; the
    weights of the signs were set on forests of other seeds than those that the figures are measured on.
    """
    if not 2 <= len(named) <= MOST:
        raise UsageError(f"expected 2 to {MOST} checkpoints, got {len(named)}: name those to be sorted into trees")
    if not 0 < alpha < 1:
        raise UsageError(f"expected an alpha between 0 and 1, got {alpha}")
    names = tuple(named)
    sketches = [sketch(named[name], name, seed) for name in names]
    rng = np.random.default_rng(seed)
    families = [family for group in by_layout(sketches) for family in _families(sketches, group)]
    judge = _Judge(named, names, seed, alpha / max(1, len(names)))
    edges: list[Edge] = []
    for family in families:
        edges += _edges(family, sketches, judge, rng, draws)
    return _forest(names, edges, _common(families, edges, names), alpha, tuple(judge.refused))


@dataclass(frozen=True, eq=False)
class _Judge:
    """Compares two checkpoints by their places."""

    named: Mapping[str, Tensors]
    names: Sequence[str]
    seed: int
    alpha: float
    refused: list[str] = field(default_factory=list)

    def __call__(self, first: int, second: int) -> Comparison:
        one, other = (self.named[self.names[at]] for at in (first, second))
        return compare(one, other, seed=self.seed, alpha=self.alpha)


@dataclass(frozen=True, eq=False)
class _Family:
    """Checkpoints of one layout that are alike in place, by their places among all."""

    members: tuple[int, ...]
    relations: Relations


def _families(sketches: Sequence[Sketch], group: Sequence[int]) -> list[_Family]:
    """Checkpoints of one layout, apart where no chain of alike ones leads from one to the other."""
    if not sketches[group[0]].matrices:
        return [_Family((at,), Relations.of([sketches[at]])) for at in group]
    relations = Relations.of([sketches[at] for at in group])
    alike = np.median(relations.inner, axis=0) > ALIKE
    return [_Family(tuple(group[at] for at in part), relations.among(part)) for part in components(alike)]


def components(linked: Array) -> list[list[int]]:
    """Groups of nodes that are linked, directly or not, by ``linked`` (n, n).

    >>> components(np.array([[True, False, True], [False, True, False], [True, False, True]]))
    [[0, 2], [1]]
    """
    from scipy.sparse.csgraph import connected_components

    count, labels = connected_components(np.asarray(linked), directed=False)
    return [[int(at) for at in np.flatnonzero(labels == label)] for label in range(count)]


def _edges(
    family: _Family, sketches: Sequence[Sketch], judge: _Judge, rng: np.random.Generator, draws: int
) -> list[Edge]:
    """The edges of a family; where nobody holds another, none."""
    there = np.median(family.relations.there, axis=0)
    found: list[Edge] = []
    alike = np.median(family.relations.inner, axis=0) >= CLOSE
    for part in components((np.maximum(there, there.T) >= HOLDS) & alike):
        if len(part) > 1:
            members = [family.members[at] for at in part]
            reduced = np.array([sketches[at].reduced for at in members])
            tree = rooted(family.relations.among(part), reduced, rng, draws)
            found += _confirmed(tree, members, reduced, judge)
    return found


def _confirmed(tree: Rooted, members: Sequence[int], reduced: Array, judge: _Judge) -> list[Edge]:
    """Edges that the comparison of the two confirms."""
    found = []
    for link in tree.links:
        parent, child = members[link.parent], members[link.child]
        seen = judge(parent, child)
        if seen.p_value > judge.alpha:
            judge.refused.append(f"{judge.names[child]} is near to {judge.names[parent]}: p {seen.p_value:.2g}")
            continue
        kind: Kind = "derived"
        if link.share < 1:
            kind = "average"
        elif reduced[link.child] > reduced[link.parent]:
            kind = "quantised" if reduced[link.child] == 2 else "pruned"
        sure = link.support >= SUPPORT and link.direction >= SUPPORT
        names = judge.names[parent], judge.names[child]
        numbers = link.distance, link.support, link.direction
        found.append(Edge(*names, kind, *numbers, sure, seen.p_value, link.share))
    return found


def _common(families: Sequence[_Family], edges: Sequence[Edge], names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Of each family the roots, where there are several."""
    children = {edge.child for edge in edges}
    roots = ([names[at] for at in family.members if names[at] not in children] for family in families)
    return tuple(tuple(group) for group in roots if len(group) > 1)


def _forest(
    names: tuple[str, ...],
    edges: Sequence[Edge],
    common: tuple[tuple[str, ...], ...],
    alpha: float,
    notes: tuple[str, ...],
) -> Forest:
    """Sort edges into trees."""
    children = {edge.child for edge in edges}
    roots = tuple(name for name in names if name not in children)
    below: dict[str, list[str]] = {}
    for edge in edges:
        below.setdefault(edge.parent, []).append(edge.child)
    trees = []
    for root in roots:
        tree, at = [root], 0
        while at < len(tree):
            tree += [child for child in below.get(tree[at], []) if child not in tree]
            at += 1
        trees.append(tuple(tree))
    return Forest(names, tuple(edges), roots, tuple(trees), common, alpha, RESTS_ON, notes)
