"""One tree of related checkpoints: its edges, and where its root may lie."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma

import numpy as np

from minutia.core.digest import Array
from minutia.methods.weights.forest_direction import Relations
from minutia.methods.weights.forest_tree import Average, arborescence, averages, made_from

SHARPNESS = 20.0
"""Cost of a distance that is e times as large, in log-odds."""
KEPT = 10.0
"""Log-odds for each row that a child left as its parent had it: the strongest sign there is, for rows of tokens that
its text did not hold are like nobody's but its parent's."""
MARGIN = 0.45
"""How much nearer, in log squared sines of rows, a parent must be than its own parent."""
NEVER = 1e4
"""Cost of an edge that cannot be, taken only where there is no other."""
BEYOND = 1.3
"""Squared distance from an average, relative to those from its parents, from which on one may stem from it."""


@dataclass(frozen=True)
class Link:
    """An edge by places: ``support`` whichever way it points, ``direction`` the share of that for this way."""

    parent: int
    child: int
    distance: float
    support: float
    direction: float
    share: float = 1.0


@dataclass(frozen=True)
class Rooted:
    """The edges of a tree; a child that is an average has two parents."""

    links: tuple[Link, ...]


def rooted(relations: Relations, reduced: Array, rng: np.random.Generator, draws: int) -> Rooted:
    """Find the tree of related checkpoints by all tensors, and the support of its edges.

    Support is by ``draws`` draws of a Bayesian bootstrap of tensors (D. B. Rubin, Annals of Statistics 9(1), 1981).

    ``reduced`` (n,) says what was quantised (2) or pruned (1): a parent of nothing that is less reduced. For every
    root that is possible the cheapest arborescence is found; roots are weighed by its cost, by the log-odds of its
    directions, and by the number of histories in which it can have grown.
    """
    count = len(relations.inner)
    first = _Weighed.of(relations, reduced, np.ones(count))
    seen: dict[tuple[int, int], float] = defaultdict(float)
    for _ in range(draws):
        drawn = _Weighed.of(relations, reduced, rng.exponential(size=count))
        for edge, weight in drawn.edges.items():
            seen[edge] += weight
    total = {edge: weight + draws * first.edges.get(edge, 0.0) for edge, weight in seen.items()}
    sines = relations.sines()
    shares = {(m.child, p): s for m in first.averages for p, s in ((m.first, m.share), (m.second, 1 - m.share))}
    links = []
    for parent, child in first.best:
        either = seen[parent, child] + seen[child, parent]
        there, back = total.get((parent, child), 0.0), total.get((child, parent), 0.0)
        way = there / max(there + back, 1e-300)
        share = shares.get((child, parent), 1.0)
        if way < 0.5 and share == 1:
            parent, child, way = child, parent, 1 - way
        links.append(Link(parent, child, float(sines[parent, child]), float(either / draws), float(way), share))
    return Rooted(tuple(links))


@dataclass(frozen=True, eq=False)
class _Weighed:
    """All roots of a tree, weighed: the likeliest tree, and the probability of each directed edge."""

    best: tuple[tuple[int, int], ...]
    edges: Mapping[tuple[int, int], float]
    averages: tuple[Average, ...]

    @classmethod
    def of(cls, relations: Relations, reduced: Array, weights: Array) -> "_Weighed":
        squares = np.average(relations.squares, axis=0, weights=weights)
        found = averages(squares, reduced == 0)
        odds = relations.log_odds(weights)
        near = np.average(relations.near, axis=0, weights=weights * relations.rows)
        kept = np.where(reduced == 2, 0.0, np.tensordot(weights, relations.kept, 1))
        cost = SHARPNESS * near - KEPT * kept + np.log1p(np.exp(-odds))
        _forbid(cost, reduced, found, squares)
        trees, scores = [], []
        made = {average.child for average in found}
        for root in np.flatnonzero(reduced == reduced.min()):
            if int(root) not in made:
                tree = _beside(arborescence(cost, int(root)), cost, near, kept, reduced > 0)
                trees.append(tree)
                below = np.flatnonzero(tree >= 0)
                scores.append(_histories(tree) - float(cost[tree[below], below].sum()))
        likely = np.exp(np.array(scores) - max(scores))
        likely /= likely.sum()
        edges: dict[tuple[int, int], float] = defaultdict(float)
        for tree, weight in zip(trees, likely, strict=True):
            for edge in _with_second(tree, found):
                edges[edge] += float(weight)
        best = _with_second(trees[int(np.argmax(likely))], found)
        return cls(tuple(best), edges, found)


def _beside(tree: Array, cost: Array, near: Array, kept: Array, copies: Array) -> Array:
    """Hang nodes that are hardly nearer to their parent than to their parent's parent on the latter.

    Two children of one parent that learnt alike are nearer to each other than two steps that have nothing in common
    would be, and a small step to one of them would pass for a stop on the way to the other.
    """
    found, todo = tree.copy(), True
    while todo:
        todo = False
        for node, parent in enumerate(found):
            above = int(found[parent]) if parent >= 0 else -1
            if above < 0 or copies[node] or kept[parent, node] > kept[above, node]:
                continue
            if near[parent, node] < near[above, node] - MARGIN:
                continue
            if cost[above, node] < NEVER / 2:
                found[node] = above
                todo = True
    return found


def _forbid(cost: Array, reduced: Array, found: Sequence[Average], squares: Array) -> None:
    """Raise the cost, in place, of edges that cannot be; quantised copies are no parents at all."""
    cost[reduced[:, None] > reduced[None, :]] = np.inf
    if not (reduced == 2).all():
        cost[reduced == 2] = np.inf
    for average in found:
        own = [average.child, *made_from(average, squares)]
        near = np.sqrt(squares[:, average.first] * squares[:, average.second])
        forbidden = (squares[:, average.child] <= BEYOND * near) | (near == 0)
        forbidden[own] = False
        forbidden[reduced > 0] = False
        cost[np.ix_(np.array(own), np.flatnonzero(forbidden))] += NEVER
    for average in found:
        others = np.arange(len(cost)) != average.first
        cost[others, average.child] += NEVER


def _with_second(tree: Array, found: Sequence[Average]) -> list[tuple[int, int]]:
    """(parent, child) of a tree, and the second parents of averages."""
    edges = [(int(parent), child) for child, parent in enumerate(tree) if parent >= 0]
    return edges + [(average.second, average.child) for average in found]


def _histories(tree: Array) -> float:
    """Logarithm of the number of orders in which a tree's nodes can have been made: n! over sizes of all subtrees.

    >>> round(_histories(np.array([-1, 0, 0])), 3), round(_histories(np.array([-1, 0, 1])), 3)
    (0.693, 0.0)
    """
    sizes = np.ones(len(tree))
    for start in range(len(tree)):
        at = int(tree[start])
        while at >= 0:
            sizes[at] += 1
            at = int(tree[at])
    return float(lgamma(len(tree) + 1) - np.log(sizes).sum())
