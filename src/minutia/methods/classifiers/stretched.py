"""Stretched points: as far beyond the owner's boundary as copies can be followed and innocent models cannot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.boundary import agreed_labels, in_turns, noisy_twins
from minutia.methods.classifiers.crafting import bisected, lead, wide
from minutia.methods.classifiers.ensembles import by_recipe, roots
from minutia.methods.classifiers.grouped import GROUP, GroupRate
from minutia.methods.classifiers.match_rate import bits_per_probe, matched

THRESHOLD = "threshold"
"""Array of a fingerprint: the share of its probes that must match for each group (g,) to count."""
LEAST = 10
"""Groups below which nothing can be decided."""
POOL = 48
"""Models of each side on which factors are chosen, drawn from all kinds in turn."""
STEPS = 40
"""Steps to a point across the boundary."""
LONGEST = 0.05
"""Longest step, in units of the input range per dimension."""
HALVINGS = 10
OVERSHOOT = 1.05
"""So that steps end across the boundary, not on it."""


class Reach(NamedTuple):
    """What stretching does: the owner's labels (n, t), -1 where a factor is of no use, and who gives them as well.

    ``points`` are (n, t, *shape), ``copies`` (a, n, t) and ``innocents`` (b, n, t).
    """

    points: Array
    labels: Array
    copies: Array
    innocents: Array


@dataclass(frozen=True)
class Stretched(GroupRate):
    """Points x0 + tau (x_adv - x0) beyond the owner's boundary, with a factor tau that was chosen on two pools.

    H0: the suspect was trained without the owner's model. x_adv lies just across the boundary of a random other class,
    seen from the input x0. The larger tau, the more copies give the owner's label, and the more innocent models as
    well. On ``grid`` factors from 1 to ``furthest`` it is measured from where on each model of the fit part of the
    material follows the owner: tau must reach the quantile ``robust`` over copies and stay below the quantile
    1 - ``unique`` over innocent models. Inputs that leave nothing in between are dropped, so there may be fewer than
    ``probes``; of what is left the factor that separates the pools best is taken. The other part of the material
    screens and orders. ``robust`` is one half because copies that learnt from answers are among the pool: they follow
    late or never, and if nearly all had to, hardly an input would be left.

    With ``composite`` k > 1 a fingerprint is a group of k points of one input, each towards another class, and with
    ``flatten`` x_adv lies near the meeting point of all boundaries: it maximises the margin of its class minus
    ``flatten`` times the variance of all other logits. A group counts if at least as many of its points match as a
    threshold of its own says, which is fitted on the pools too. Score: share of groups that count.

    Source: Yang, Geng, Chen, Luo, "AnaFP", arXiv 2603.21411, which bounds tau by Lipschitz constants and margins where
    here it is measured; Geng, Yang, Chen, Luo, "IrisFP", CVPR 2026, arXiv 2603.24996: ``composite=4,flatten=1``.

    >>> Stretched(probes=50).key
    'stretched(composite=1,flatten=0.0,furthest=3.0,grid=12,oversample=12,probes=50,robust=0.5,unique=0.9)@1'
    """

    name = "stretched"
    source = "Yang, Geng, Chen, Luo, arXiv 2603.21411"
    learns = True
    owner_needs = Access.LABELS | Access.GRADIENTS
    serves = frozenset({"image", "tabular"})

    probes: int = 100
    composite: int = 1
    flatten: float = 0.0
    furthest: float = 3.0
    grid: int = 12
    robust: float = 0.5
    unique: float = 0.9
    oversample: int = 12

    def __post_init__(self) -> None:
        if self.composite < 1 or self.probes < LEAST * self.composite or self.oversample < 1 or self.grid < 2:
            raise UsageError(
                f"expected probes for {LEAST} groups or more, composite and oversample >= 1 and grid >= 2, got {self}"
            )
        if not 1 < self.furthest < np.inf or not 0 <= self.flatten < np.inf:
            raise UsageError(f"expected furthest > 1 and flatten >= 0, got {self}")
        if not 0 < self.robust <= 1 or not 0 < self.unique <= 1:
            raise UsageError(f"expected robust and unique in (0, 1], got {self}")

    @property
    def size(self) -> int:
        """Points of a group."""
        return self.composite

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Cross, stretch on the fit part, screen on the other."""
        assert isinstance(model, GradientModel)
        fit, screen = material.parted()
        copies = [*fit.derived, *fit.surrogates] or noisy_twins(model, rng)
        if not copies:
            raise UsageError(
                "expected copies of the owner's model to choose factors on, got none and no weights to make some of: "
                "make copies, 'minutia extract --copies 9'"
            )
        starts, across, goal, first = self.crossed(model, material, rng)
        reach = self.stretch(model, drawn(copies), drawn(fit.unrelated), starts, across, goal, material)
        chosen, room = self.factors(reach)
        groups = np.flatnonzero(room.reshape(-1, self.size).any(axis=1))
        if len(groups) < LEAST:
            raise ModelError(
                f"expected {LEAST} or more inputs that leave room between copies and innocent models, got "
                f"{len(groups)}: give more data, a smaller share robust or a larger oversample"
            )
        rows = (groups[:, None] * self.size + np.arange(self.size)).ravel()
        at = rows, chosen[rows]
        thresholds = fitted_thresholds(*(self._counts(m[:, *at]) for m in (reach.copies, reach.innocents)))
        points, labels = reach.points[at], reach.labels[at]
        seen = [
            self._counts(matched(some, numbered(points, {}), labels)) >= thresholds
            for some in ([*screen.derived, *screen.surrogates] or copies, screen.unrelated)
        ]
        facets = np.stack([labels, first[rows]], axis=1)[:: self.size]
        count = min(self.probes // self.size, len(groups))
        order = in_turns(bits_per_probe(*seen), seen[1], facets, count, 1 - self.unique, rng)
        rows = (order[:, None] * self.size + np.arange(self.size)).ravel()
        arrays = {GROUP: np.repeat(np.arange(count), self.size), THRESHOLD: thresholds[order] / self.size}
        return Enrolment(numbered(points[rows], {"channel": "array"}), arrays, roots(fit.unrelated))

    def worth(self, fp: Fingerprint, shares: Array, groups: Array) -> Array:
        """Whether enough of each group's probes match."""
        return (shares >= fp.arrays[THRESHOLD][groups] - 1e-9).astype(float)

    def crossed(
        self, model: GradientModel, material: Material, rng: np.random.Generator
    ) -> tuple[Array, Array, Array, Array]:
        """Inputs, points just across a boundary (n, *shape), the classes there and those of the inputs (n,)."""
        wanted = self.probes // self.size * self.oversample
        some = rng.choice(len(material.inputs), wanted, replace=wanted > len(material.inputs))
        starts = np.repeat(material.stored(material.inputs[some]), self.size, axis=0)
        logits, _ = model.linearise(starts)
        first, classes = logits.argmax(axis=1), logits.shape[1]
        offset = np.repeat(rng.integers(0, classes - 1, wanted), self.size) + np.tile(np.arange(self.size), wanted)
        goal = (first + 1 + offset % (classes - 1)) % classes
        return starts, cross(model, starts, goal, self.flatten, material.bounds), goal, first

    def stretch(
        self,
        model: Model,
        copies: Sequence[Model],
        innocents: Sequence[Model],
        starts: Array,
        across: Array,
        goal: Array,
        material: Material,
    ) -> Reach:
        """Everybody's answers at all factors; of no use is what the owner does not name as the class aimed at."""
        factors = np.linspace(1, self.furthest, self.grid).reshape(1, -1, *[1] * (starts.ndim - 1))
        points = material.stored(starts[:, None] + factors * (across - starts)[:, None])
        flat = points.reshape(-1, *starts.shape[1:])
        own = agreed_labels(model, flat).reshape(len(starts), self.grid)
        labels = np.where(own == goal[:, None], own, -1)
        probes = numbered(flat, {})
        seen = [matched(some, probes, labels.ravel()).reshape(-1, *labels.shape) for some in (copies, innocents)]
        return Reach(points, labels, *(s & (labels >= 0) for s in seen))

    def factors(self, reach: Reach) -> tuple[Array, Array]:
        """The factor of each row as its place on the grid (n,), and whether robustness and uniqueness leave room."""
        low, high = interval(reach.copies, reach.innocents, self.robust, self.unique)
        places = np.arange(self.grid)
        inside = (places >= low[:, None]) & (places < high[:, None]) & (reach.labels >= 0)
        apart = reach.copies.mean(axis=0) - reach.innocents.mean(axis=0)
        room = np.asarray(inside.any(axis=1))
        allowed = np.where(room[:, None], inside, reach.labels >= 0)
        return np.where(allowed, apart, -np.inf).argmax(axis=1), room

    def _counts(self, match: Array) -> Array:
        """Matches (models, groups) from matches of single points (models, n)."""
        return match.reshape(len(match), -1, self.size).sum(axis=2)


def interval(copies: Array, innocents: Array, robust: float, unique: float) -> tuple[Array, Array]:
    """The first place (n,) on the grid that is robust, and the first that is no longer unique.

    Robust: a share ``robust`` of ``copies`` (a, n, t) has followed by then. Unique: a share ``unique`` of ``innocents``
    (b, n, t) has not.

    >>> one, other = np.array([[[False, True, True]]]), np.array([[[False, False, True]]])
    >>> [int(place[0]) for place in interval(one, other, 0.9, 0.9)]
    [1, 2]
    """
    most = int(np.ceil(round(robust * len(copies), 9))) - 1
    few = min(int(round((1 - unique) * len(innocents), 9)), len(innocents) - 1)
    return np.sort(_entry(copies), axis=0)[most], np.sort(_entry(innocents), axis=0)[few]


def _entry(match: Array) -> Array:
    """The first place of each row's grid at which each model follows (models, n); the grid's end if it never does."""
    return np.where(match.any(axis=2), match.argmax(axis=2), match.shape[2])


def fitted_thresholds(copies: Array, innocents: Array) -> Array:
    """The number of matches per group (g,) that separates copies (a, g) from innocents (b, g) best, the larger of two.

    >>> fitted_thresholds(np.array([[3, 1], [2, 1]]), np.array([[1, 0], [0, 0]])).tolist()
    [2, 1]
    """
    levels = np.arange(1, max(int(copies.max(initial=1)), 1) + 1)[:, None, None]
    apart = (copies >= levels).mean(axis=1) - (innocents >= levels).mean(axis=1)
    return np.asarray(len(levels) - apart[::-1].argmax(axis=0))


def cross(model: GradientModel, starts: Array, goal: Array, flatten: float, bounds: tuple[float, float]) -> Array:
    """Points (n, *shape) just inside class ``goal`` (n,), or where that is not reached the last one on the way.

    Steps are such that a linear model would be across with one; what comes out is halved back towards the start.
    """
    low, high = bounds
    longest = LONGEST * (high - low) * np.sqrt(starts[0].size)
    at = np.array(starts, dtype=np.float32)
    for _ in range(STEPS):
        logits, pull_back = model.linearise(at)
        loss, slope = objective(logits, goal, flatten)
        way = pull_back(slope)
        length = np.sqrt((way.reshape(len(way), -1).astype(float) ** 2).sum(axis=1)) + 1e-12
        step = np.minimum(OVERSHOOT * loss / length, longest) / length
        at = np.clip(at - wide(step, at) * way, low, high).astype(np.float32)

    def inside(way: Array) -> Array:
        return np.asarray(model.linearise(starts + wide(way, at) * (at - starts))[0].argmax(axis=1) == goal)

    far = bisected(inside, np.ones(len(at)), HALVINGS)
    return np.asarray(starts + wide(far, at) * (at - starts), dtype=np.float32)


def objective(logits: Array, goal: Array, flatten: float) -> tuple[Array, Array]:
    """Loss (n,) and its slope in the logits (n, classes).

    The loss is the lead of the best other class over ``goal``, if any, plus ``flatten`` times the others' variance.

    >>> loss, slope = objective(np.array([[1.0, 3.0, 5.0]]), np.array([0]), 1.0)
    >>> loss.tolist(), slope.tolist()
    ([5.0], [[-1.0, -1.0, 2.0]])
    """
    rows = np.arange(len(goal))
    others = np.ones(logits.shape, bool)
    others[rows, goal] = False
    ahead, best = lead(logits, goal)
    count = logits.shape[1] - 1
    apart = np.where(others, logits - np.where(others, logits, 0).sum(axis=1, keepdims=True) / count, 0)
    slope = flatten * 2 * apart / count
    slope[rows, best] += ahead < 0
    slope[rows, goal] -= ahead < 0
    return np.maximum(-ahead, 0) + flatten * (apart**2).sum(axis=1) / count, slope.astype(np.float32)


def drawn(models: Sequence[Model]) -> list[Model]:
    """At most ``POOL`` models, all recipes in turn."""
    kinds = by_recipe(models)
    deepest = max(map(len, kinds), default=0)
    return [some[place] for place in range(deepest) for some in kinds if place < len(some)][:POOL]
