"""Trees of checkpoints from distances: averages of two others, and the cheapest arborescence."""

from dataclasses import dataclass

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError

STRAIGHT = 0.01
"""Squared distance from the line between two others, against that from the nearer one, up to which it lies on it."""
INSIDE = 0.02
"""Least share of either parent in an average."""
CORNER = 0.7
"""What is made from an average sees its parents under an obtuse angle; their ancestors see them under a right one."""


@dataclass(frozen=True)
class Average:
    """Checkpoint ``child`` is ``share`` of ``first`` and the rest of ``second``; all are places in a list."""

    child: int
    first: int
    second: int
    share: float


def averages(squares: Array, whole: Array) -> tuple[Average, ...]:
    """Find checkpoints on the straight line between two others, from squared distances (n, n).

    Only those that are ``whole`` (n,), not quantised or pruned, are looked at: a copy lies beside its source. Trained
    weights do not lie on such lines. Of several pairs the two farthest from each other are taken: nobody can tell an
    average of averages from an average.

    >>> points = np.array([[0.0, 0.0], [4.0, 0.0], [1.0, 0.0], [2.0, 2.0]])
    >>> averages(((points[:, None] - points) ** 2).sum(-1), np.ones(4, bool))
    (Average(child=2, first=0, second=1, share=0.75),)
    """
    found = []
    for child in range(len(squares)):
        near = squares[child]
        with np.errstate(divide="ignore", invalid="ignore"):
            along = (near[:, None] + squares - near[None, :]) / (2 * squares)
            beside = near[:, None] - along**2 * squares
            nearer = np.minimum(near[:, None], near[None, :])
            fits = (np.abs(along - 0.5) < 0.5 - INSIDE) & (beside < STRAIGHT * nearer) & (nearer > 0)
        fits &= whole[:, None] & whole & whole[child]
        fits[child] = fits[:, child] = False
        if fits.any():
            widest = np.unravel_index(np.argmax(np.where(fits, squares, -1)), fits.shape)
            first, second = sorted(map(int, widest))
            found.append(Average(child, first, second, 1 - float(along[first, second])))
    return tuple(found)


def made_from(average: Average, squares: Array) -> list[int]:
    """Checkpoints that were made from an average, by squared distances (n, n): they stand between its parents.

    Seen from a common ancestor the two parents lie at a right angle, for what they learnt has little in common; seen
    from what was made of the average, which lies between them, at an obtuse one.
    """
    a, b, m = average.first, average.second, average.child
    apart = squares[a, b]
    foot = 1 - (squares[:, a] + apart - squares[:, b]) / (2 * apart)
    level = np.abs(foot - average.share) < 0.2
    close = squares[:, m] < CORNER * np.sqrt(squares[m, a] * squares[m, b])
    return [int(at) for at in np.flatnonzero(level & close) if at not in (a, b, m)]


def arborescence(cost: Array, root: int) -> Array:
    """The parent of each node (n,), -1 for the root, so that everything hangs on the root as cheaply as possible.

    ``cost[u, v]`` (n, n) is that of u as the parent of v, infinite where it may not be. UsageError where a node cannot
    be reached.

    >>> cost = np.array([[9, 5, 5], [9, 9, 1], [9, 2, 9]], dtype=float)
    >>> arborescence(cost, 0).tolist()
    [-1, 0, 1]

    Source: J. Edmonds, Optimum branchings, Journal of Research of the National Bureau of Standards 71B, 1967.
    """
    held = cost.astype(np.float64).copy()
    np.fill_diagonal(held, np.inf)
    held[:, root] = np.inf
    parents = held.argmin(axis=0)
    parents[root] = -1
    others = [v for v in range(len(held)) if v != root]
    if not np.isfinite(held[parents[others], others]).all():
        raise UsageError("expected every node to be reached from the root, got one that no edge leads to: allow more")
    cycle = _cycle(parents)
    return parents if not cycle else _expanded(held, parents, cycle, root)


def _cycle(parents: Array) -> list[int]:
    """The nodes of one cycle, empty where there is none."""
    state = np.zeros(len(parents), dtype=int)
    for start in range(len(parents)):
        path, at = [], start
        while at >= 0 and state[at] == 0:
            state[at] = 1
            path.append(at)
            at = int(parents[at])
        if at >= 0 and state[at] == 1:
            return path[path.index(at) :]
        state[path] = 2
    return []


def _expanded(cost: Array, parents: Array, cycle: list[int], root: int) -> Array:
    """Take a cycle for one node, solve, and open it where the solution enters it."""
    outside = np.array([v for v in range(len(cost)) if v not in cycle])
    ring, count = np.array(cycle), len(outside)
    entering = cost[np.ix_(outside, ring)] - cost[parents[ring], ring]
    leaving = cost[np.ix_(ring, outside)]
    small = np.full((count + 1, count + 1), np.inf)
    small[:count, :count] = cost[np.ix_(outside, outside)]
    small[:count, count], small[count, :count] = entering.min(axis=1), leaving.min(axis=0)
    solved = arborescence(small, int(np.flatnonzero(outside == root)[0]))
    found = parents.copy()
    for at, node in enumerate(outside):
        above = int(solved[at])
        found[node] = -1 if above < 0 else ring[leaving[:, at].argmin()] if above == count else outside[above]
    enters = int(solved[count])
    found[ring[entering[enters].argmin()]] = outside[enters]
    return found
