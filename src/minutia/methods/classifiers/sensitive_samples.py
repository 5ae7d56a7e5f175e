"""Sensitive samples: a few inputs whose outputs move with every weight."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Answers, Observation
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.integrity import FARTHEST, Reading, gauge_of, outputs, reading_of, tolerances
from minutia.core.material import Material
from minutia.core.method import Enrolment, Method
from minutia.core.model import Model, WeightModel
from minutia.core.probe import numbered
from minutia.methods.classifiers.crafting import wide

MOST = 10
"""Probes that are enough, and cheap enough to ask before every deployment."""
NATURAL = 500
"""Inputs of the owner's that say how far a change moves what users will ask."""
BENIGN = 12
"""Benign runs that say, while probes are chosen, how far rounding moves an output."""
HALVINGS = 14
ENOUGH = 0.1
"""A probe that moves this share as far as the natural input that moves farthest has half the worth of any."""
SWEEPS = 3
SMALLEST_CHANGE = 1e-3
"""How far a weight is changed whose tensor does not vary at all."""
TWEAKS = 400
"""Neighbours of a probe that are looked at in each round of bringing it nearer to the boundary."""
MARGIN = 3.0
"""A probe's two largest outputs lie this many tolerances apart: nearer, and rounding alone might flip its label."""


@dataclass(frozen=True)
class SensitiveSamples(Method):
    """At most ten inputs, together sensitive to every weight, whose outputs show whether a model was changed.

    H0: the suspect is the owner's model, unchanged, run in one of the ways in which he ran it.

    The paper ascends the squared norm of the gradient of all outputs with respect to all weights from a natural
    image, and picks few of many such samples so that together they activate most neurons. Here candidates are natural
    inputs, unions of two, and noise, drawn together onto the decision boundary by bisection, where labels tell most.
    The gradient is taken by finite differences: ``twins`` rebuilds of the model with one weight changed each, and the
    changed models in ``Material.derived``. Probes are chosen greedily, then by exchange, so that every change moves
    some probe as far, measured in tolerances, as it moves any natural input. Last, a few input values are changed in
    small steps until the two largest outputs are only just told apart.

    Source: He, Zhang, Lee, "Sensitive-Sample Fingerprinting of Deep Neural Networks", CVPR 2019, arXiv 1808.03277.
    Finite differences, the choice over whole models and the boundary are ours.

    >>> SensitiveSamples(probes=6).key
    'sensitive_samples(pool=1600,probes=6,rounds=12,twins=400)@1'
    """

    name = "sensitive_samples"
    question = "integrity"
    h0 = "the suspect is the enrolled model, unchanged, run in one of the ways in which its owner ran it"
    source = "He, Zhang, Lee, CVPR 2019, arXiv 1808.03277"
    owner_needs = Access.LABELS | Access.SCORES | Access.WEIGHTS
    suspect_needs = Access.LABELS
    serves = frozenset({"image", "tabular"})  # numbers of tokens cannot be moved in small steps

    probes: int = 10
    pool: int = 1600
    twins: int = 400
    rounds: int = 12

    def __post_init__(self) -> None:
        if not 1 <= self.probes <= MOST:
            raise UsageError(f"expected 1 to {MOST} probes, got {self.probes}: more are not needed")
        if self.pool < self.probes or self.twins < 1 or self.rounds < 0:
            raise UsageError(f"expected a pool of {self.probes} or more, twins >= 1 and rounds >= 0, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Draw candidates, see what moves them, choose, bring nearer to the boundary."""
        assert isinstance(model, WeightModel)
        first, second = (_drawn(material, self.pool, rng) for _ in range(2))
        points = on_boundary(model, material, first, second[rng.permutation(len(second))])
        here, there = (Felt.by(model, material, some) for some in (points, _natural(material)))
        changed = chain(material.derived, (_one_weight(model, rng) for _ in range(self.twins)))
        chosen = cover(_worth(model, changed, here, there), self.probes)
        probes = [self.nearer(model, points[i], here.noise[i], material, rng) for i in chosen]
        return Enrolment(numbered(np.array(probes), {"channel": "array"}), {})

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """Minus the largest deviation in tolerances, 0 for the owner's own answers; no answer is as far as can be."""
        found = gauge_of(fp, reading_of(fp.answers, observation)).deviations(observation)
        return 0.0 - float(np.nan_to_num(found, nan=FARTHEST).max(initial=0.0))

    def nearer(self, model: Model, point: Array, noise: float, material: Material, rng: np.random.Generator) -> Array:
        """Move one point in small random steps until its two largest outputs lie ``MARGIN`` tolerances apart."""
        best = _excess(model, point[None], noise)[0]
        for _ in range(self.rounds):
            tried = material.stored(_tweaked(point, material, rng))
            excess = _excess(model, tried, noise)
            if excess.min() < best:
                point, best = tried[excess.argmin()], excess.min()
        return point


def on_boundary(model: Model, material: Material, first: Array, second: Array) -> Array:
    """Stored points (n, *shape) between pairs with two labels, just where the label of the first one ends.

    The segment is halved again and again. Where no pair has two labels there is no boundary to be found, and the first
    points stay as they are.
    """
    labels = _labels(model, first)
    differ = labels != _labels(model, second)
    if differ.any():
        first, second, labels = first[differ], second[differ], labels[differ]
    for _ in range(HALVINGS if differ.any() else 0):
        middle = (first + second) / 2
        same = wide(_labels(model, middle) == labels, first)
        first, second = np.where(same, middle, first), np.where(same, second, middle)
    return np.unique(material.stored(first), axis=0)


def _drawn(material: Material, count: int, rng: np.random.Generator) -> Array:
    """Natural inputs, unions of two, uniform noise, and noise of the two extreme values, a quarter each."""
    each = -(-count // 4)
    shape = (each, *material.inputs.shape[1:])
    some = [material.inputs[rng.integers(0, len(material.inputs), each)] for _ in range(3)]
    low, high = _box(material)
    share = rng.random((each, *[1] * (len(shape) - 1)))
    extreme = np.where(rng.random(shape) < share, high, low)
    made = [some[0], np.maximum(some[1], some[2]), rng.uniform(low, high, shape), extreme]
    return np.concatenate(made).astype(np.float32)


def _box(material: Material) -> tuple[Array, Array]:
    """Lowest and highest values of inputs: pixels share one range, columns of a table have their own."""
    if material.content == "image":
        low, high = material.bounds
        return np.full(material.inputs.shape[1:], low), np.full(material.inputs.shape[1:], high)
    return material.inputs.min(axis=0), material.inputs.max(axis=0)


def _tweaked(point: Array, material: Material, rng: np.random.Generator) -> Array:
    """Neighbours of a point: one to three values moved by a grey level or two, or without levels by any small step."""
    low, high = _box(material)
    flat = np.repeat(point.reshape(1, -1), TWEAKS, axis=0).astype(float)
    places = rng.integers(flat.shape[1], size=(TWEAKS, 3))
    if material.levels is not None:
        size = rng.choice([1.0, 2.0], places.shape) / (material.levels - 1)
    else:
        size = 10.0 ** rng.uniform(-6, -2, places.shape)
    size *= np.arange(3) < rng.integers(1, 4, (TWEAKS, 1))
    step = rng.choice([-1.0, 1.0], places.shape) * size * (high - low).reshape(-1)[places]
    np.add.at(flat, (np.arange(TWEAKS)[:, None], places), step)
    return flat.reshape(-1, *point.shape)


def _one_weight(model: WeightModel, rng: np.random.Generator) -> Model:
    """A rebuild of a model with one weight changed by as much as weights of its tensor vary."""
    weights = {name: w for name, w in model.tensors() if w.size}
    names, sizes = list(weights), np.array([w.size for w in weights.values()])
    name = names[rng.choice(len(names), p=sizes / sizes.sum())]
    changed = np.array(weights[name])
    changed.reshape(-1)[rng.integers(changed.size)] += rng.choice([-1, 1]) * max(float(changed.std()), SMALLEST_CHANGE)
    return model.rebuilt({name: changed})


@dataclass(frozen=True, eq=False)
class Felt:
    """Points (n, *shape) with the owner's outputs there and their tolerances, both (n, classes)."""

    points: Array
    outputs: Array
    tolerance: Array

    @classmethod
    def by(cls, model: Model, material: Material, points: Array) -> "Felt":
        """Ask the owner's model, and a few of its benign runs, which say how far rounding moves each output."""
        asked = numbered(points, {})
        own = model.ask(asked)
        reading = _reading(own)
        benign = (run.ask(asked) for run in material.controls.get("benign", ())[:BENIGN])
        return cls(points, outputs(own, reading), tolerances(own, benign, reading))

    @property
    def noise(self) -> Array:
        """The largest tolerance of each point (n,), as a share of its largest output."""
        return np.asarray(self.tolerance.max(axis=1) / np.maximum(np.abs(self.outputs).max(axis=1), 1e-12))

    def moved(self, changed: Model) -> Array:
        """How far a change moves each point (n,), in tolerances."""
        apart = np.abs(_values(changed, self.points) - self.outputs) / self.tolerance
        return np.asarray(np.nan_to_num(apart, nan=0.0, posinf=0.0).max(axis=1))


def _natural(material: Material) -> Array:
    """Inputs of the owner's, evenly spread over all of them."""
    return material.inputs[:: -(-len(material.inputs) // NATURAL)]


def _worth(model: Model, changed: Iterable[Model], here: Felt, there: Felt) -> Array:
    """How far every change (row) moves every point (column) here, beside the input there that it moves farthest.

    A change that moves no natural input is measured by the point that it moves farthest; one that moves nothing is
    left out, and if none is left, ModelError.
    """
    found = []
    for twin in changed:
        moved = here.moved(twin)
        farthest = there.moved(twin).max() or moved.max()
        if farthest > 0:
            found.append(moved / farthest)
    if not found:
        raise ModelError(f"expected changes of weights to move the outputs of {model.spec}, got none that does")
    return np.array(found)


def cover(worth: Array, count: int) -> list[int]:
    """Choose columns so that every row is moved by some of them: greedily, then exchanging one at a time.

    ``worth`` (changes, candidates) is how far a change moves a candidate; the gain levels off at ``ENOUGH``.

    >>> cover(np.array([[1.0, 0.9, 0.0], [0.0, 0.9, 0.1], [0.0, 0.0, 0.2]]), 2)
    [1, 2]
    """
    gain = worth / (worth + ENOUGH)
    count = min(count, gain.shape[1])
    chosen: list[int] = []
    for _ in range(count * (1 + SWEEPS)):
        if len(chosen) == count:
            chosen.pop(0)
        reached = gain[:, chosen].max(axis=1, initial=0.0)
        total = np.maximum(reached[:, None], gain).sum(axis=0)
        total[chosen] = -1
        chosen.append(int(total.argmax()))
    return chosen


def _values(model: Model, points: Array) -> Array:
    answers = model.ask(numbered(points, {}))
    return outputs(answers, _reading(answers))


def _reading(answers: Answers) -> Reading:
    return Reading("scores" if answers.logits is None else "logits")


def _labels(model: Model, points: Array) -> Array:
    return model.ask(numbered(points.astype(np.float32), {})).labels


def _excess(model: Model, points: Array, noise: float) -> Array:
    """By how much the lead of the largest output exceeds what rounding may undo (n,); infinite where it falls short."""
    values = _values(model, points)
    top = np.sort(values, axis=1)
    wanted = MARGIN * 2 * noise * np.abs(values).max(axis=1)
    excess = top[:, -1] - top[:, -2] - wanted
    return np.asarray(np.where(excess >= 0, excess, np.inf))
