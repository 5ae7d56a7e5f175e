"""IPGuard: points just across the owner's decision boundary."""

from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.boundary import agreed_labels, in_turns, margins, noisy_twins
from minutia.methods.classifiers.match_rate import MatchRate, bits_per_probe, confidence, matched

BATCH = 128
"""Rows optimised at a time: enough to amortise the overhead, few enough to stay in the processor's cache."""
LEAVE_AT = 0.8
"""Rows that reached loss 0 leave the batch when only this share of it is still going."""


@dataclass(frozen=True)
class IPGuard(MatchRate):
    r"""Points on the facet between two classes of the owner's model, screened on innocent models.

    H0: the suspect was trained without the owner's model. Each point starts at an image of class i and moves until
    class j leads class i by ``k`` and i is the runner-up: ReLU(Z_i - Z_j + k) + ReLU(max_t Z_t - Z_i). ``k`` is the
    quantile ``margin`` of the owner's own top-1 to top-2 margins, because logits have no common unit. All points
    are optimised in one batch by one Adam (``rate`` in units of the input range); rows that reached loss 0 leave it.
    Points are stored as a suspect will receive them and kept only if the owner's answer survives that. Those that
    spent models match too often are dropped, the rest is ordered by bits of evidence per query; copies given as
    ``Material.derived`` (else noisy twins of the weights) estimate how well a copy keeps each answer.

    Source: Cao, Jia, Gong, "IPGuard", AsiaCCS 2021, arXiv 1910.12903. Screening and ordering are ours.

    >>> IPGuard(probes=50).key
    "ipguard(innocent=0.1,margin=0.1,oversample=24,probes=50,rate=0.01,steps=300,target='random')@1"
    """

    name = "ipguard"
    source = "Cao, Jia, Gong, AsiaCCS 2021, arXiv 1910.12903"
    owner_needs = Access.LABELS | Access.GRADIENTS
    serves = frozenset({"image", "tabular"})  # points move continuously; numbers of tokens are names

    probes: int = 100
    margin: float = 0.1
    target: str = "random"
    rate: float = 0.01
    steps: int = 300
    oversample: int = 24
    innocent: float = 0.1

    def __post_init__(self) -> None:
        if self.target not in ("random", "least-likely"):
            raise UsageError(f"expected target random or least-likely, got {self.target!r}")
        if self.probes < 2 or self.oversample < 1 or not 0 <= self.margin <= 1:
            raise UsageError(f"expected probes >= 2, oversample >= 1 and margin in [0, 1], got {self}")
        if not 0 < self.rate < np.inf or self.steps < 1:
            raise UsageError(f"expected a positive rate and 1 or more steps, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Craft, store, re-check, screen, order."""
        assert isinstance(model, GradientModel)
        wanted = self.probes * self.oversample
        rows = rng.choice(len(material.inputs), wanted, replace=wanted > len(material.inputs))
        crafted, reached = self.craft(model, material.inputs[rows], material, rng)
        points = np.unique(material.stored(crafted[reached]), axis=0)
        labels = agreed_labels(model, points)
        points, labels = points[labels >= 0], labels[labels >= 0]
        if len(points) < self.probes:
            raise ModelError(
                f"expected {self.probes} boundary points that survive storage, got {len(points)}: "
                "give more data, more steps or a smaller margin"
            )
        probes = numbered(points, {})
        innocents = confidence(material.unrelated, probes, labels)
        # Copies are unsure of every probe, so only their labels tell; of innocents, how sure they are tells more.
        kept = matched(material.derived or noisy_twins(model, rng), probes, labels)
        facets = np.argsort(model.linearise(points)[0], axis=1)[:, :-3:-1]
        order = self._order(bits_per_probe(kept, innocents), innocents, facets, rng)
        return Enrolment(numbered(points[order], {"channel": "array"}), {})

    def craft(
        self, model: GradientModel, starts: Array, material: Material, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Move all starts (n, *shape) across their facet; return points and which rows reached loss 0."""
        logits, _ = model.linearise(starts)
        first = logits.argmax(axis=1)
        goal = _targets(logits, first, self.target, rng)
        gap = float(np.quantile(margins(logits), self.margin))
        low, high = material.bounds
        return descend(model, starts, first, goal, gap, (low, high), self.rate * (high - low), self.steps)

    def _order(self, bits: Array, innocents: Array, facets: Array, rng: np.random.Generator) -> Array:
        """Most informative first; ``facets`` (n, 2) are the owner's label and runner-up of each probe."""
        return in_turns(bits, innocents, facets, self.probes, self.innocent, rng)


def descend(
    model: GradientModel,
    starts: Array,
    first: Array,
    goal: Array,
    gap: float,
    bounds: tuple[float, float],
    rate: float,
    steps: int,
) -> tuple[Array, Array]:
    """Minimise the facet loss of all rows with one batched Adam, at most ``steps`` per row.

    Every iterate is clipped to ``bounds``. Rows at loss 0 stay as they are and leave the batch, waiting rows take
    their place, so memory is bounded by the batch and no row waits for a slow one. Returns the points (n, *shape)
    and the rows (n,) that reached loss 0.
    """
    points = np.array(starts, dtype=np.float32)
    reached = np.zeros(len(points), bool)
    rows, waiting = np.arange(min(BATCH, len(points))), BATCH
    state = _State.fresh(points[rows])
    while len(rows):
        logits, pull_back = model.linearise(state.at)
        loss, slope = facet_loss(logits, first[rows], goal[rows], gap)
        reached[rows] |= loss <= 0
        going = ~reached[rows] & (state.step < steps)
        slope[~going] = 0
        state.advance(pull_back(slope), going, rate, bounds)
        # Back-ends prepare every new batch size anew, so rows leave when a fifth of them is done, not one by one.
        if going.sum() <= LEAVE_AT * len(rows):
            points[rows] = state.at
            entering = np.arange(waiting, min(waiting + int((~going).sum()), len(points)))
            waiting += len(entering)
            rows = np.concatenate([rows[going], entering])
            state = state.kept(going).joined(_State.fresh(points[entering]))
    return points, reached


@dataclass(eq=False)
class _State:
    """Adam for a batch of rows that are each at their own step (Kingma and Ba, ICLR 2015)."""

    at: Array
    mean: Array
    square: Array
    step: Array

    @classmethod
    def fresh(cls, points: Array) -> "_State":
        return cls(points.copy(), np.zeros_like(points), np.zeros_like(points), np.zeros(len(points), int))

    def advance(self, gradient: Array, going: Array, rate: float, bounds: tuple[float, float]) -> None:
        """One step for the rows that are going, clipped to the bounds; the others keep their point."""
        wide = (-1, *[1] * (self.at.ndim - 1))
        self.step += 1
        self.mean += 0.1 * (gradient - self.mean)
        self.square += 0.001 * (gradient**2 - self.square)
        first = (1 - 0.9**self.step).astype(np.float32).reshape(wide)
        second = (1 - 0.999**self.step).astype(np.float32).reshape(wide)
        moved = self.at - rate * (self.mean / first) / (np.sqrt(self.square / second) + 1e-8)
        self.at = np.where(going.reshape(wide), np.clip(moved, *bounds), self.at).astype(np.float32, copy=False)

    def kept(self, rows: Array) -> "_State":
        return _State(self.at[rows], self.mean[rows], self.square[rows], self.step[rows])

    def joined(self, other: "_State") -> "_State":
        pairs = ((self.at, other.at), (self.mean, other.mean), (self.square, other.square), (self.step, other.step))
        return _State(*(np.concatenate(pair) for pair in pairs))


def facet_loss(logits: Array, first: Array, goal: Array, gap: float) -> tuple[Array, Array]:
    """Loss (n,) and its gradient with respect to the logits (n, classes).

    >>> loss, slope = facet_loss(np.array([[2.0, 1.0, 3.0]]), np.array([0]), np.array([1]), 0.5)
    >>> loss.tolist(), slope.tolist()
    ([2.5], [[0.0, -1.0, 1.0]])
    """
    rows = np.arange(len(logits))
    others = logits.copy()
    others[rows, first] = others[rows, goal] = -np.inf
    third = others.argmax(axis=1)
    cross = logits[rows, first] - logits[rows, goal] + gap
    runner_up = others[rows, third] - logits[rows, first]
    slope = np.zeros_like(logits)
    slope[rows, first] += cross > 0
    slope[rows, goal] -= cross > 0
    slope[rows, third] += runner_up > 0
    slope[rows, first] -= runner_up > 0
    return np.maximum(cross, 0) + np.maximum(runner_up, 0), slope


def _targets(logits: Array, first: Array, rule: str, rng: np.random.Generator) -> Array:
    """A class other than the first for each row: the least likely, or any at random."""
    if rule == "least-likely":
        return logits.argmin(axis=1)
    classes = logits.shape[1]
    return (first + rng.integers(1, classes, len(first))) % classes
