"""Shared by query-time defences: the thief's model behind his own filter, with its weights out of sight."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from minutia.core.access import Access, names
from minutia.core.answers import Answers, Status
from minutia.core.attack import Attack
from minutia.core.digest import Array, content_digest
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Model, ModelCard
from minutia.core.probe import ProbeSet, numbered

ANSWERED = Access.LABELS | Access.TOP_K | Access.SCORES | Access.LOGITS
"""What can pass a filter; weights, gradients and bills stay with the thief."""
SCORED = Access.LABELS | Access.TOP_K | Access.SCORES
TOKENS = 1024
"""Tokens that are told apart; in larger vocabularies some share a place."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What a filter is set up with once, before anybody asks: a seed, measured arrays, a model to mix in."""

    seed: int = 0
    arrays: Mapping[str, Array] = field(default_factory=dict)
    companion: Model | None = None

    def generators(self, probes: ProbeSet) -> list[np.random.Generator]:
        """One generator per probe, fixed by the seed, the probe's numbers and the repeat; never by the batch.

        >>> probes = ProbeSet(("a", "b"), np.eye(2))
        >>> first, second = (g.random() for g in Setup(1).generators(probes))
        >>> Setup(1).generators(probes.take([1]))[0].random() == second != first
        True
        """
        head = f"{self.seed}:{probes.repeat}:".encode()
        rows = np.ascontiguousarray(probes.array, "<f4")
        return [_generator(head + row.tobytes()) for row in rows]


class Served:
    """A model whose answers pass through a filter: same weights, but they and all other access are hidden."""

    def __init__(self, inner: Model, attack: "Serving", setup: Setup) -> None:
        self._inner, self._attack, self._setup = inner, attack, setup
        self.spec = inner.spec
        self.access = attack.shown(inner.access)
        companion = setup.companion.card.id if setup.companion else None
        made = {"inner": inner.card.id, "attack": attack.key, "seed": setup.seed, "companion": companion}
        digest = content_digest(made, setup.arrays)
        self.card = ModelCard(digest, inner.card.root, attack.key, (inner.card.id,))

    def ask(self, probes: ProbeSet) -> Answers:
        """Answer through the filter; what ``access`` does not name is left out."""
        answers = self._attack.serve(self._inner, probes, self._setup)
        scores = answers.scores if Access.SCORES in self.access else None
        logits = answers.logits if Access.LOGITS in self.access else None
        return Answers(answers.status, answers.labels, scores, logits)


@dataclass(frozen=True)
class Serving(Attack, ABC):
    """A filter before or behind a model. ``shows`` is what it lets through of what the model itself gives.

    An answer is a function of the seed, the probe's content and the repeat, so that neither the order of asking nor
    the split into batches changes it: what looks random to a user is the same for whoever asks the same again.
    """

    serving = True
    needs = Access.LABELS
    shows: ClassVar[Access] = ANSWERED

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Set the filter up and put it around the model."""
        return Served(model, self, self.setup(model, material, rng))

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Draw and measure what the filter needs; by default nothing."""
        return Setup()

    def shown(self, access: Access) -> Access:
        """What the served model gives where the model itself gives ``access``."""
        return access & self.shows

    @abstractmethod
    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """Ask the model and return what is served; pure."""


def seeded(rng: np.random.Generator, arrays: Mapping[str, Array] | None = None) -> Setup:
    """A setup with a fresh seed, for filters that draw at random for every probe."""
    return Setup(int(rng.integers(2**63)), arrays or {})


def rescored(answers: Answers, scores: Array, labels: Array | None = None) -> Answers:
    """Other scores (n, classes), and labels (n,), by default the best scored; rows without an answer stay so.

    >>> rescored(Answers.from_scores(np.array([[0.2, 0.8]])), np.array([[0.6, 0.4]])).labels.tolist()
    [0]
    """
    fine = answers.status == Status.OK
    named = np.nan_to_num(scores).argmax(axis=1) if labels is None else labels
    own = scores if answers.scores is None else answers.scores
    kept = np.where(fine[:, None], scores, own).astype(np.float32)
    return replace(answers, labels=np.where(fine, named, -1).astype(np.int64), scores=kept, logits=None)


def renamed(answers: Answers, labels: Array) -> Answers:
    """Other labels (n,); where scores are known, those of the old and the new class change places.

    >>> renamed(Answers.from_scores(np.array([[0.1, 0.2, 0.7]])), np.array([0])).scores.round(1).tolist()
    [[0.699999988079071, 0.20000000298023224, 0.10000000149011612]]
    """
    rows = np.flatnonzero(answers.status == Status.OK)
    columns: dict[str, Any] = {}
    for name in ("scores", "logits"):
        column = getattr(answers, name)
        if column is not None:
            columns[name] = column.copy()
            columns[name][rows, answers.labels[rows]] = column[rows, labels[rows]]
            columns[name][rows, labels[rows]] = column[rows, answers.labels[rows]]
    return replace(answers, labels=labels.astype(np.int64), **columns)


def refused(answers: Answers, rows: Array) -> Answers:
    """The same with no answer in the rows (n,) that are True, and nothing left of what it would have been.

    >>> refused(Answers.from_labels(np.array([3, 4])), np.array([True, False])).status.tolist()
    [1, 0]
    """
    silent = rows & (answers.status == Status.OK)
    columns: dict[str, Any] = {}
    for name in ("scores", "logits"):
        column = getattr(answers, name)
        if column is not None:
            columns[name] = np.where(silent[:, None], np.float32(np.nan), column)
    return replace(answers, status=np.where(silent, Status.REFUSED, answers.status).astype(np.uint8), **columns)


def check_share(share: float) -> None:
    """A share of natural inputs that a filter may hurt."""
    if not 0 <= share < 1:
        raise UsageError(f"expected a share in [0, 1), got {share}")


def classes_of(model: Model, material: Material) -> int:
    """How many classes a model knows: one score each, else as many as the attacker's own labels name."""
    scores = model.ask(numbered(material.inputs[:1], {})).scores
    if scores is not None:
        return int(scores.shape[1])
    if len(material.labels) and material.labels.max() > 0:
        return int(material.labels.max()) + 1
    raise UsageError(
        f"expected scores or labelled inputs to count the classes of {model.spec}, got neither: give labelled data"
    )


def companion_of(attack: Attack, model: Model, material: Material) -> Model:
    """The thief's independent model, which must answer like the victim: same classes, scores where it gives them."""
    other = material.companion
    if other is None:
        raise UsageError(f"expected material with a companion model for {attack.name}, got none: give one")
    needs = model.access & (Access.LABELS | Access.SCORES)
    if needs not in other.access:
        raise UsageError(
            f"expected a companion that gives {', '.join(names(needs))} for {attack.name}, got {other.spec} with "
            f"{', '.join(names(other.access))}: give another model"
        )
    mine, its = (classes_of(m, material) for m in (model, other))
    if mine != its:
        raise UsageError(f"expected a companion of {mine} classes for {attack.name}, got {its}: give another model")
    return other


def features(inputs: Array, text: bool) -> Array:
    """What inputs (n, *shape) are compared by (n, d): their numbers, or how often a text holds each token.

    >>> features(np.array([[2, 2, 0]]), True)[0, :3].tolist()
    [1.0, 0.0, 2.0]
    """
    flat = inputs.reshape(len(inputs), int(np.prod(inputs.shape[1:]))).astype(float)
    if not text:
        return flat
    counts = np.zeros((len(flat), TOKENS))
    np.add.at(counts, (np.arange(len(flat))[:, None], flat.astype(np.int64) % TOKENS), 1)
    return counts


def distances(one: Array, other: Array) -> Array:
    """Euclidean distances (n, m) between rows (n, d) and (m, d).

    >>> distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[5.0, 0.0]]
    """
    squares = np.sum(one**2, axis=1)[:, None] + np.sum(other**2, axis=1) - 2 * (one @ other.T)
    return np.asarray(np.sqrt(np.maximum(squares, 0)))


def _generator(key: bytes) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:16], "little"))
