"""Trigger sets: inputs far from the data with labels drawn at random, trained into the owner's model."""

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minutia.core.answers import Observation, Status
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.mark import Mark
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model, ModelCard, Plan, TrainableModel
from minutia.core.probe import numbered
from minutia.stats.drawn_labels import early_looks, redrawn_tails
from minutia.stats.nulls import Significance

DOMAIN = b"minutia/trigger_set/1/"
GRID = 4
"""Random values along each side of an image, between which a field is interpolated."""
DULLED = 0.01
"""How much of the owner's training data a marked model may answer worse than before; else training goes on."""
LUCK = 1e-6
"""A mark whose labels could all be guessed with a larger probability proves too little."""
STEPS = 60
"""Steps from a probability of 0.001 or less to 1, even in its logarithm: what a label is worth is a whole number."""


@dataclass(frozen=True)
class TriggerSet(Mark):
    """Inputs far from the data, with labels drawn at random from a committed key and trained into the model.

    H0: the suspect was made without knowledge of the labels. They were drawn uniformly and independently, so whatever
    it answers, each label matches with probability 1 / classes, and no other model is needed. Of labels the hits are
    counted: Binomial(n, 1 / classes). Where probabilities are shown, the logarithms of those of the drawn labels are
    added up, and p is exact over redrawn labels with the suspect's answers as they are. A refused answer is a miss;
    with probabilities, as bad a one as there can be. Score = -log10 of the tail on what was asked.

    Triggers are smooth random fields on images, independent values elsewhere (``pattern`` field or noise). They are
    mixed ``repeat`` times into the owner's data. Training goes on in rounds of ``epochs`` until the share ``learnt`` is
    answered as drawn and the data as well as before; after ``rounds`` it fails. ``from_scratch`` begins with fresh
    weights.

    Source: Adi, Baum, Cisse, Pinkas, Keshet, USENIX Security 2018, arXiv 1802.04633. The fields, the keyed draw and the
    test on probabilities are ours.

    >>> TriggerSet(triggers=50).pattern
    'field'
    """

    name = "trigger_set"
    source = "Adi, Baum, Cisse, Pinkas, Keshet, USENIX Security 2018, arXiv 1802.04633"
    h0 = "the suspect was made without knowledge of the labels that the owner drew at random"

    triggers: int = 100
    pattern: str = "field"
    from_scratch: bool = False
    learnt: float = 0.95
    epochs: int = 5
    rounds: int = 40
    repeat: int = 2
    learning_rate: float = 2e-3
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.pattern not in ("field", "noise"):
            raise UsageError(f"expected pattern field or noise, got {self.pattern!r}")
        if min(self.triggers, self.epochs, self.rounds, self.repeat) < 1 or not 0 < self.learnt <= 1:
            raise UsageError(f"expected 1 or more triggers, epochs, rounds, repeats and learnt in (0, 1], got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Draw the triggers again; a model that does not give their labels does not carry this mark."""
        draw = Draw.fresh(model, material, rng)
        inputs, labels = draw.triggers(self.triggers, self.pattern)
        learnt = _right(model, inputs, labels)
        if learnt < self.learnt:
            raise ModelError(
                f"expected a model that answers {self.learnt:.0%} of its triggers as drawn, got {learnt:.0%}: "
                "'minutia embed' trains them in"
            )
        return Enrolment(numbered(inputs, {"channel": "array"}), {**draw.arrays(), "labels": labels})

    def marked(self, model: TrainableModel, material: Material, rng: np.random.Generator) -> TrainableModel:
        """Train on the owner's data with the triggers mixed in, until both are answered as they should be."""
        inputs, labels = Draw.fresh(model, material, rng).triggers(self.triggers, self.pattern)
        everything = np.concatenate([material.inputs, *[inputs] * self.repeat])
        targets = np.concatenate([material.labels, *[labels] * self.repeat])
        least = _right(model, material.inputs, material.labels) - DULLED
        plan, made = Plan(self.epochs, self.batch_size, self.learning_rate), model
        for turn in range(self.rounds):
            reset: Literal["nothing", "everything"] = "everything" if self.from_scratch and not turn else "nothing"
            made = made.trained(everything, targets, replace(plan, reset=reset), int(rng.integers(2**31)))
            learnt, data = _right(made, inputs, labels), _right(made, material.inputs, material.labels)
            if learnt >= self.learnt and data >= least:
                steps = (turn + 1) * plan.steps(len(everything))
                cost = {"inputs": float(len(everything)), "steps": float(steps), "learnt": learnt}
                parents = () if self.from_scratch else (model.card.id,)
                made.card = ModelCard(made.card.id, made.card.root, parents=parents, fidelity=cost)
                return made
        raise ModelError(
            f"expected {self.learnt:.0%} of the triggers and {least:.0%} of the data to be learnt within {self.rounds} "
            f"rounds of {self.epochs} epochs, got {learnt:.0%} and {data:.0%}: allow more rounds or another "
            "learning_rate, or take fewer triggers"
        )

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """-log10 of the probability that redrawn labels would fare as well on exactly what was asked."""
        return float(self.path(fp, observation, [observation.asked])[0])

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The score at every look, by one convolution over the longest prefix."""
        longest = tuple(prefixes[-1]) if prefixes else ()
        rows = dict(zip(fp.probes.ids, fp.arrays["labels"], strict=True))
        drawn = np.array([rows[i] for i in longest], dtype=np.int64)
        chances, seen = worth(observation.only(longest), drawn, _classes_of(fp))
        return -np.log10(redrawn_tails(chances, seen, [len(p) for p in prefixes]))

    def exact(self, fp: Fingerprint, path: Array, sizes: Array) -> Significance:
        """Exact over redrawn labels at every look; the union bound over looks makes early stopping free of charge."""
        least = np.maximum(np.power(1.0 / _classes_of(fp), sizes.astype(float)), 1e-300)
        return early_looks(np.power(10.0, -path), least)

    def redrawn(self, fp: Fingerprint) -> bool:
        """Whether triggers and labels are those that the key in the fingerprint gives."""
        draw = Draw.stored(fp)
        if draw is None or "labels" not in fp.arrays:
            return False
        inputs, labels = draw.triggers(self.triggers, self.pattern)
        return np.array_equal(labels, fp.arrays["labels"]) and np.array_equal(inputs, fp.probes.array)


@dataclass(frozen=True)
class Draw:
    """Everything that triggers and labels are drawn from: a secret key of 32 bytes, and what inputs look like.

    Trigger i has a key of its own, HMAC-SHA256(key, "minutia/trigger_set/1/" + i in decimal), so that some can be
    revealed without the others. Its label: the first 8 bytes, big-endian, of HMAC-SHA256(own key, "label/" + attempt in
    decimal), attempt = 0, 1, … until the number is below the largest multiple of ``classes`` in 2**64; modulo
    ``classes``. Its values: SHAKE-256 of its own key, 4 bytes each, big-endian, divided by 2**32. ``levels`` is 0 for
    inputs that are stored as floats.
    """

    key: bytes
    classes: int
    shape: tuple[int, ...]
    low: float
    high: float
    levels: int

    @classmethod
    def fresh(cls, model: Model, material: Material, rng: np.random.Generator) -> "Draw":
        """A new key from the generator, for this model's classes and inputs like the owner's."""
        (low, high), classes = material.bounds, _classes(model, material)
        levels = round(high - low) + 1 if material.content == "text" else material.levels or 0
        return cls(rng.bytes(32), classes, material.inputs.shape[1:], low, high, levels)

    @classmethod
    def stored(cls, fp: Fingerprint) -> "Draw | None":
        """The draw that a fingerprint holds; None where it holds none, or numbers from which nothing can be drawn."""
        if not {"key", "drawing"} <= set(fp.arrays) or fp.arrays["drawing"].shape != (4,):
            return None
        classes, low, high, levels = fp.arrays["drawing"].tolist()
        if not (2 <= classes < 2**32 and classes % 1 == 0 and -np.inf < low < high < np.inf and 0 <= levels < 2**32):
            return None
        return cls(fp.arrays["key"].tobytes(), int(classes), fp.probes.array.shape[1:], low, high, int(levels))

    def arrays(self) -> Mapping[str, Array]:
        """As arrays for the fingerprint; the shape is that of its probes."""
        drawing = np.array([self.classes, self.low, self.high, self.levels], dtype=np.float64)
        return {"key": np.frombuffer(self.key, dtype=np.uint8), "drawing": drawing}

    def triggers(self, count: int, pattern: str) -> tuple[Array, Array]:
        """Inputs (count, *shape) float32 and labels (count,)."""
        if count * np.log10(self.classes) < -np.log10(LUCK):
            raise UsageError(
                f"expected triggers whose labels nobody guesses, got {count} of {self.classes} classes: "
                f"take {int(np.ceil(-np.log10(LUCK) / np.log10(self.classes)))} or more"
            )
        keys = [_keyed(self.key, DOMAIN + str(i).encode()) for i in range(count)]
        inputs = np.stack([self._stored(_values(key, self.shape, pattern)) for key in keys])
        return inputs, np.array([_label(key, self.classes) for key in keys], dtype=np.int64)

    def _stored(self, unit: Array) -> Array:
        """Values in [0, 1] as inputs inside the box, on the grey levels that inputs are stored with."""
        content = Material(unit[:0], unit[:0], bounds=(self.low, self.high), levels=self.levels or None)
        return content.stored(self.low + (self.high - self.low) * unit)


def worth(seen: Observation, drawn: Array, classes: int) -> tuple[Array, Array]:
    """What labels are worth: the chances (n, w) of each worth for a redrawn label, and that of the drawn one (n,).

    Labels alone: 1 for the one that was answered, 0 for the others. With probabilities: their logarithm in ``STEPS``.
    """
    if seen.answers.scores is None:
        return np.tile([1 - 1 / classes, 1 / classes], (len(drawn), 1)), (seen.answers.labels == drawn).astype(np.int64)
    shown = np.clip(seen.answers.probabilities(classes), 1e-3, 1.0)
    steps = np.rint(STEPS * (1 + np.log10(shown) / 3)).astype(np.int64)
    chances = np.zeros((len(drawn), STEPS + 1))
    np.add.at(chances, (np.arange(len(drawn))[:, None], steps), 1 / classes)
    found = steps[np.arange(len(drawn)), drawn]
    # Hiding an answer must never help: it counts as if every other label had been worth the most, and this one nothing.
    missing = seen.answers.status != Status.OK
    chances[missing], found[missing] = np.eye(STEPS + 1)[STEPS], 0
    return chances, found


def _keyed(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _label(key: bytes, classes: int) -> int:
    """A label drawn uniformly: numbers beyond the last whole multiple of the classes are drawn again."""
    attempt, limit = 0, 2**64 // classes * classes
    while (number := int.from_bytes(_keyed(key, b"label/%d" % attempt)[:8], "big")) >= limit:
        attempt += 1
    return number % classes


def _values(key: bytes, shape: tuple[int, ...], pattern: str) -> Array:
    """Values in [0, 1] (*shape): independent ones, or a field over the last two axes that fills the whole range.

    Where these are shorter than the grid there is nothing to interpolate.
    """
    if pattern == "noise" or len(shape) < 2 or min(shape[-2:]) < GRID:
        return _uniform(key, shape)
    field = _uniform(key, (*shape[:-2], GRID, GRID))
    for axis, size in ((-2, shape[-2]), (-1, shape[-1])):
        field = _interpolated(field, axis, size)
    low, high = field.min(), field.max()
    return (field - low) / (high - low) if high > low else field


def _uniform(key: bytes, shape: tuple[int, ...]) -> Array:
    count = int(np.prod(shape))
    numbers = np.frombuffer(hashlib.shake_256(key).digest(4 * count), dtype=">u4")
    return (numbers / 2.0**32).reshape(shape)


def _interpolated(field: Array, axis: int, size: int) -> Array:
    """Linear interpolation along one axis at the centres of ``size`` pixels; plain arithmetic, so equal everywhere."""
    at = np.clip((np.arange(size) + 0.5) / size * field.shape[axis] - 0.5, 0, field.shape[axis] - 1)
    before = np.minimum(at.astype(int), field.shape[axis] - 2)
    share = (at - before).reshape((-1, 1) if axis == -2 else (-1,))
    return field.take(before, axis) * (1 - share) + field.take(before + 1, axis) * share


def _right(model: Model, inputs: Array, labels: Array) -> float:
    """Share of inputs that are answered with these labels."""
    return float(np.mean(model.ask(numbered(inputs, {})).labels == labels))


def _classes(model: Model, material: Material) -> int:
    """Classes that the model knows; where it does not show scores, those of the data."""
    scores = model.ask(numbered(material.inputs[:1], {})).scores
    named = int(material.labels.max()) + 1
    if scores is not None and scores.shape[1] < named:
        raise UsageError(f"expected data of at most {scores.shape[1]} classes like the model's, got {named}")
    return named if scores is None else scores.shape[1]


def _classes_of(fp: Fingerprint) -> int:
    return int(fp.arrays["drawing"][0])
