"""Boundary search: points just across the owner's decision boundary, found from his model's labels alone."""

from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.boundary import agreed_labels, in_turns
from minutia.methods.classifiers.crafting import bisected, wide
from minutia.methods.classifiers.match_rate import MatchRate, bits_per_probe, confidence, matched

HALVINGS = 8
"""Halvings of each bisection: to 1/256 of the way between two points."""
DIRECTIONS = 24
"""Random directions from which the normal of the boundary is estimated at each point."""
CHECKS = 2
"""Times that the points are asked once more at the end, together and in parts."""
EACH = 1 + HALVINGS + CHECKS
"""Questions about each point if it is not moved closer."""
STRIDE, SHORT = 0.5, 0.125
"""Length of a step along the normal, and of the directions that tell it, in distances from the input."""


@dataclass(frozen=True)
class BoundarySearch(MatchRate):
    """Points a step beyond the owner's boundary, found by bisection between inputs: no gradients, labels are enough.

    H0: the suspect was trained without the owner's model. Pairs of inputs that the owner's model names differently are
    halved, all in one batch, to a point just across the boundary of the first. Then, as long as ``budget`` questions to
    the owner last, each point is moved closer to its input: the boundary's normal is the mean of random directions,
    signed by whether a short way along them the class is left or kept; the point goes along it and is halved back
    towards the input. So it ends where the owner errs and innocent models still name the input's class. At last it goes
    on, away from the input, by the quantile ``margin`` of all points' distances from their inputs. Points whose answer
    does not survive storage are dropped, the others screened on spent models and ordered like those of IPGuard. Without
    copies (``Material.derived``) only what innocents answer orders them.

    Source: Chen, Jordan, Wainwright, "HopSkipJumpAttack", IEEE S&P 2020, arXiv 1904.02144 (normal and halving); Cao,
    Jia, Gong, "IPGuard", AsiaCCS 2021, arXiv 1910.12903 (boundary points as fingerprint).

    >>> BoundarySearch(probes=50).key
    'boundary_search(budget=400000,innocent=0.1,margin=0.1,oversample=12,probes=50)@1'
    """

    name = "boundary_search"
    source = "Chen, Jordan, Wainwright, IEEE S&P 2020, arXiv 1904.02144"
    owner_needs = Access.LABELS
    serves = frozenset({"image", "tabular"})  # between two numbers of tokens there is nothing

    probes: int = 100
    budget: int = 400_000
    margin: float = 0.1
    oversample: int = 12
    innocent: float = 0.1

    def __post_init__(self) -> None:
        if self.probes < 2 or self.oversample < 1 or not 0 <= self.margin <= 1 or not 0 <= self.innocent <= 1:
            raise UsageError(f"expected probes >= 2, oversample >= 1 and shares in [0, 1], got {self}")
        if self.budget < EACH * self.probes:
            raise UsageError(
                f"expected a budget of at least {EACH} questions per probe, got {self.budget} for "
                f"{self.probes} probes: raise it or ask for fewer probes"
            )

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Search, store, re-check, screen, order."""
        points, before = self.search(model, material, rng)
        points, first = np.unique(material.stored(points), axis=0, return_index=True)
        labels, before = agreed_labels(model, points), before[first]
        fine = (labels >= 0) & (labels != before)
        points, labels, before = points[fine], labels[fine], before[fine]
        if len(points) < self.probes:
            raise ModelError(
                f"expected {self.probes} boundary points that survive storage, got {len(points)}: "
                "give more data, a larger budget or a larger margin"
            )
        probes = numbered(points, {})
        innocents = confidence(material.unrelated, probes, labels)
        bits = bits_per_probe(matched(material.derived, probes, labels), innocents)
        facets = np.stack([labels, before], axis=1)
        order = in_turns(bits, innocents, facets, self.probes, self.innocent, rng)
        return Enrolment(numbered(points[order], {"channel": "array"}), {})

    def search(self, model: Model, material: Material, rng: np.random.Generator) -> tuple[Array, Array]:
        """Points (n, *shape) beyond the owner's boundary, and the labels (n,) on this side of it."""
        starts, ends, line = self.pairs(model, material, rng)
        low, high = material.bounds
        points = halved(line, starts, ends)
        while line.left >= (DIRECTIONS + HALVINGS + 1 + CHECKS) * len(points):
            points = closer(line, starts, points, (low, high), rng)
        reach = distances(points, starts)
        beyond = float(np.quantile(reach, self.margin)) / np.maximum(reach, 1e-9)
        return np.clip(points + wide(beyond, points) * (points - starts), low, high), line.first

    def pairs(self, model: Model, material: Material, rng: np.random.Generator) -> tuple[Array, Array, "Line"]:
        """Inputs (n, *shape), as many of another owner's label, and the line between their labels.

        Every second line is crossed only where the other input's own label begins.
        """
        wanted = min(self.probes * self.oversample, self.budget // EACH)
        some = rng.permutation(len(material.inputs))[:wanted]
        inputs = material.stored(material.inputs[some])
        labels = model.ask(numbered(inputs, {})).labels
        named = np.flatnonzero(labels >= 0)
        if len(set(labels[named])) < 2:
            raise ModelError(
                f"expected a model that names 2 or more classes on the given data, got {len(set(labels[named]))}: "
                "give data of all classes"
            )
        rows = rng.choice(named, wanted, replace=wanted > len(named))
        others = np.array([rng.choice(named[labels[named] != labels[row]]) for row in rows])
        goal = np.where(np.arange(wanted) % 2 == 1, labels[others], -1)
        return inputs[rows], inputs[others], Line(model, labels[rows], goal, self.budget - len(inputs))


@dataclass(eq=False)
class Line:
    """Which answers of the owner's model lie across: those of class ``goal`` (n,), or where it is -1 any but ``first``.

    ``left`` are the questions that may still be asked.
    """

    model: Model
    first: Array
    goal: Array
    left: int

    def crossed(self, points: Array) -> Array:
        """Whether each point (n, *shape) lies across its line; points without an answer do not."""
        self.left -= len(points)
        labels = self.model.ask(numbered(np.asarray(points, np.float32), {})).labels
        return np.where(self.goal < 0, (labels != self.first) & (labels >= 0), labels == self.goal)


def halved(line: Line, inside: Array, outside: Array) -> Array:
    """Points (n, *shape) between inside and outside that lie just across.

    Each answer halves all rows; the outer end always lies across, the inner end never does.
    """

    def across(way: Array) -> Array:
        return line.crossed(inside + wide(way, inside) * (outside - inside))

    far = bisected(across, np.ones(len(inside)), HALVINGS)
    return np.asarray(inside + wide(far, inside) * (outside - inside), dtype=np.float32)


def closer(line: Line, starts: Array, points: Array, bounds: tuple[float, float], rng: np.random.Generator) -> Array:
    """Points across that are nearer to their starts, or the same where none was found."""
    way = distances(points, starts)
    ahead = np.clip(points + wide(STRIDE * way, points) * normals(line, points, way, rng), *bounds)
    across = line.crossed(ahead)
    found = halved(line, starts, np.where(wide(across, points), ahead, points))
    better = across & (distances(found, starts) < way)
    return np.where(wide(better, points), found, points)


def normals(line: Line, points: Array, way: Array, rng: np.random.Generator) -> Array:
    """Unit vectors (n, *shape) that point across: the mean of random directions signed by the answers there.

    ``way`` (n,) are the distances from the inputs, of which directions are a part as long.
    """
    total = np.zeros(points.shape)
    for _ in range(DIRECTIONS // 2):
        ahead = np.asarray(rng.normal(size=points.shape))
        ahead = wide(SHORT * way / _length(ahead), points) * ahead
        for one in (ahead, -ahead):
            total += wide(np.where(line.crossed(points + one), 1.0, -1.0), points) * one
    return np.asarray(total / wide(np.maximum(_length(total), 1e-9), points))


def distances(points: Array, starts: Array) -> Array:
    """Euclidean distances (n,) between rows.

    >>> distances(np.array([[3.0, 4.0]]), np.zeros((1, 2))).tolist()
    [5.0]
    """
    return _length(points - starts)


def _length(rows: Array) -> Array:
    return np.sqrt((rows.reshape(len(rows), -1).astype(float) ** 2).sum(axis=1))
