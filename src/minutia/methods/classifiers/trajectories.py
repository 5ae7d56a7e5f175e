"""Trajectories: ladders of points that climb across the owner's decision boundaries."""

from collections.abc import Sequence
from dataclasses import dataclass

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
from minutia.methods.classifiers.crafting import bisected, softmax, wide
from minutia.methods.classifiers.grouped import GROUP, GroupRate
from minutia.methods.classifiers.match_rate import bits_per_probe, matched

SHRINK = 0.95
"""Each step before the boundary is this share of the one before."""
HALVINGS = 10
"""Halvings of the step size, from the whole input range down to a thousandth of it."""


@dataclass(frozen=True)
class Trajectories(GroupRate):
    """Ladders from inputs into other classes: a copy whose boundary has moved a little still agrees on most rungs.

    H0: the suspect was trained without the owner's model. From an input, ``steps`` / 2 sign steps up the slope of
    another class against all others lead just into it, each 0.95 of the one before; the step size of each ladder is
    halved down until only the last one enters. The same steps in reverse order lead on, beyond the boundary. From its
    end the next ladder starts, ``chain`` of them to a trajectory. The input itself, which every model names right, is
    not asked. ``probes`` points at most are asked, in whole trajectories; all are crafted in one batch. A trajectory's
    mutation rate is the share of its points that the suspect names otherwise than the owner. Score: with ``score_by``
    graded the mean of one minus that rate, with detection the share of trajectories whose rate is below one half.
    ``oversample`` times as many as wanted are screened on spent models and ordered like the points of IPGuard.

    Source: "United We Stand, Divided We Fall: Fingerprinting Deep Neural Networks via Adversarial Trajectories",
    NeurIPS 2024. Theirs are 100 trajectories of 9 ladders, unscreened and judged by detection:
    ``chain=9,probes=3600,score_by=detection,oversample=1``. Their step sizes are learnt, with 0.95 as the ratio that
    the loss asks for; here that ratio is kept to. Screening and ordering are ours.

    >>> Trajectories(probes=80).key
    "trajectories(chain=1,innocent=0.1,oversample=24,probes=80,score_by='detection',steps=4)@1"
    """

    name = "trajectories"
    source = "Xu and others, ADV-TRA, NeurIPS 2024"
    owner_needs = Access.LABELS | Access.GRADIENTS
    serves = frozenset({"image", "tabular"})

    probes: int = 160
    steps: int = 4
    chain: int = 1
    score_by: str = "detection"
    oversample: int = 24
    innocent: float = 0.1

    def __post_init__(self) -> None:
        if self.score_by not in ("graded", "detection"):
            raise UsageError(f"expected score_by graded or detection, got {self.score_by!r}")
        if self.steps < 2 or self.steps % 2 or self.chain < 1 or self.oversample < 1:
            raise UsageError(f"expected an even number of steps from 2, chain >= 1 and oversample >= 1, got {self}")
        if self.probes < 2 * self.size or not 0 <= self.innocent <= 1:
            raise UsageError(
                f"expected probes for at least 2 trajectories of {self.size} and innocent in [0, 1], got {self}"
            )

    @property
    def size(self) -> int:
        """Points of a trajectory."""
        return self.steps * self.chain

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Climb, store, re-check, screen and order whole trajectories."""
        assert isinstance(model, GradientModel)
        count = self.probes // self.size
        wanted = count * self.oversample
        rows = rng.choice(len(material.inputs), wanted, replace=wanted > len(material.inputs))
        crafted, goals = self.craft(model, material.stored(material.inputs[rows]), material, rng)
        points = material.stored(crafted.reshape(-1, *crafted.shape[2:]))
        labels = agreed_labels(model, points).reshape(len(crafted), -1)
        ends = labels[:, self.steps - 1 :: self.steps]
        fine = np.flatnonzero((labels >= 0).all(axis=1) & (ends == goals).all(axis=1) & (labels[:, 0] != labels[:, -1]))
        if len(fine) < count:
            raise ModelError(
                f"expected {count} trajectories that survive storage, got {len(fine)}: "
                "give more data, or ask for fewer probes or a shorter chain"
            )
        points, labels = points.reshape(crafted.shape)[fine], labels[fine]
        kept, innocents = (
            self._worths(some, points, labels)
            for some in (material.derived or noisy_twins(model, rng), material.unrelated)
        )
        facets = labels[:, [-1, 0]]
        order = in_turns(bits_per_probe(kept, innocents), innocents, facets, count, self.innocent, rng)
        group = np.repeat(np.arange(count), self.size)
        asked = points[order].reshape(-1, *crafted.shape[2:])
        return Enrolment(numbered(asked, {"channel": "array"}), {GROUP: group})

    def craft(
        self, model: GradientModel, starts: Array, material: Material, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Trajectories (n, size, *shape) from starts (n, *shape), and the classes they reach (n, chain)."""
        ladders, goals = list[Array](), list[Array]()
        first = model.linearise(starts)[0].argmax(axis=1)
        for _ in range(self.chain):
            classes = model.linearise(starts)[0].shape[1]
            goal = (first + rng.integers(1, classes, len(first))) % classes
            rungs = ladder(model, starts, goal, self.steps // 2, material.bounds)
            ladders.append(rungs)
            goals.append(goal)
            starts, first = rungs[:, -1], goal
        return np.concatenate(ladders, axis=1), np.stack(goals, axis=1)

    def worth(self, fp: Fingerprint, shares: Array, groups: Array) -> Array:
        """One minus the mutation rate, or whether that rate is below one half."""
        return self.agreed(shares)

    def agreed(self, shares: Array) -> Array:
        """What trajectories say of whose points such shares match."""
        return shares if self.score_by == "graded" else (shares > 0.5).astype(float)

    def _worths(self, models: Sequence[Model], points: Array, labels: Array) -> Array:
        """What each trajectory (column) says of each model (row)."""
        probes = numbered(points.reshape(-1, *points.shape[2:]), {})
        same = matched(models, probes, labels.reshape(-1))
        return self.agreed(same.reshape(len(models), *labels.shape).mean(axis=2))


def ladder(model: GradientModel, starts: Array, goal: Array, half: int, bounds: tuple[float, float]) -> Array:
    """Rungs (n, 2 half, *shape): ``half`` steps that lead just into class ``goal`` (n,), and as many beyond.

    Each row has its own step size, the smallest found with which the last of the first steps has entered.
    """
    low, high = bounds
    sizes = SHRINK ** np.arange(half)

    def entered(size: Array) -> Array:
        last = walked(model, starts, goal, size[:, None] * sizes, bounds)[:, -1]
        return np.asarray(model.linearise(last)[0].argmax(axis=1) == goal)

    far = bisected(entered, np.full(len(starts), high - low), HALVINGS)
    return walked(model, starts, goal, far[:, None] * np.concatenate([sizes, sizes[::-1]]), bounds)


def walked(model: GradientModel, starts: Array, goal: Array, sizes: Array, bounds: tuple[float, float]) -> Array:
    """Points (n, k, *shape) after each of k sign steps of these sizes (n, k) towards class ``goal`` (n,)."""
    at, seen = np.asarray(starts, np.float32), list[Array]()
    for size in sizes.T:
        logits, pull_back = model.linearise(at)
        way = np.sign(pull_back(slope(logits, goal)))
        at = np.clip(at + wide(size, at) * way, *bounds).astype(np.float32)
        seen.append(at)
    return np.stack(seen, axis=1)


def slope(logits: Array, goal: Array) -> Array:
    """d(Z_goal - log sum exp Z)/dZ (n, classes).

    >>> slope(np.array([[0.0, 0.0]]), np.array([1])).tolist()
    [[-0.5, 0.5]]
    """
    found = -softmax(logits)
    found[np.arange(len(goal)), goal] += 1
    return np.asarray(found, dtype=np.float32)
