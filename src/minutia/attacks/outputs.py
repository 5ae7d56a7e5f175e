"""Query-time defences that change answers: rounding, labels only, noise, refusals, detection, ensembles, renaming."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minutia.attacks.served import (
    SCORED,
    Serving,
    Setup,
    check_share,
    classes_of,
    companion_of,
    distances,
    features,
    refused,
    renamed,
    rescored,
    seeded,
)
from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Model
from minutia.core.probe import ProbeSet, numbered

CHUNK = 4096
"""Probes whose distances are computed at a time, which bounds the memory."""
SLACK = 1 + 1e-6
"""A distance is beyond the limit only if it is so by more than float noise, which depends on the batch."""


@dataclass(frozen=True)
class RoundScores(Serving):
    """Round scores to ``digits`` decimals; the label is still the class that was best before.

    Source: rounded confidences as in Tramèr et al., USENIX Security 2016, arXiv 1609.02943.

    >>> RoundScores(digits=0).rounded(Answers.from_scores(np.array([[0.3, 0.7]]))).scores.tolist()
    [[0.0, 1.0]]
    """

    name = "round_scores"
    kind = "round-scores"
    source = "Tramèr et al., USENIX Security 2016, arXiv 1609.02943"
    needs = Access.LABELS | Access.SCORES
    shows = SCORED
    digits: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.digits <= 6:
            raise UsageError(f"expected 0 to 6 digits, got {self.digits}: more than a float32 score holds")

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers, rounded."""
        return self.rounded(model.ask(probes))

    def rounded(self, answers: Answers) -> Answers:
        """Answers with rounded scores, which need not add up to 1."""
        if answers.scores is None:
            return answers
        return rescored(answers, np.round(answers.scores.astype(float), self.digits), answers.labels)


@dataclass(frozen=True)
class LabelsOnly(Serving):
    """Name the best class and nothing else.

    Source: class labels only, as in Tramèr et al., USENIX Security 2016, arXiv 1609.02943.

    >>> LabelsOnly().shown(Access.LABELS | Access.SCORES | Access.WEIGHTS) == Access.LABELS
    True
    """

    name = "labels_only"
    kind = "labels-only"
    source = "Tramèr et al., USENIX Security 2016, arXiv 1609.02943"
    shows = Access.LABELS

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers; what ``shows`` leaves out is hidden around it."""
        return model.ask(probes)


@dataclass(frozen=True)
class NoiseScores(Serving):
    """Add Gaussian noise of deviation ``strength`` to every score, cut at 0, normalise; the best class may change.

    Source: the random-noise baseline of Orekondy, Schiele, Fritz, ICLR 2020, arXiv 1906.10908.

    >>> NoiseScores(strength=0.2).key
    'noise_scores(strength=0.2)'
    """

    name = "noise_scores"
    kind = "noise-scores"
    source = "Orekondy, Schiele, Fritz, ICLR 2020, arXiv 1906.10908"
    needs = Access.LABELS | Access.SCORES
    shows = SCORED
    strength: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.strength < np.inf:
            raise UsageError(f"expected a strength of 0 or more, got {self.strength}")

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Draw the seed of the noise."""
        return seeded(rng)

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers with noise; a row of which nothing is left keeps its scores."""
        answers = model.ask(probes)
        if answers.scores is None:
            return answers
        shape = answers.scores.shape
        noise = np.reshape([g.normal(0, self.strength, shape[1]) for g in setup.generators(probes)], shape)
        noisy = np.maximum(answers.scores + noise, 0)
        total = noisy.sum(axis=1, keepdims=True)
        fine = total > 0
        return rescored(answers, np.where(fine, noisy / np.where(fine, total, 1), answers.scores))


@dataclass(frozen=True)
class FlipLabels(Serving):
    """Answer a share ``rate`` of all probes with another class at random; the scores of both change places.

    Source: ours; the plainest perturbation that a server of labels alone can use.

    >>> FlipLabels(rate=0.1).key
    'flip_labels(rate=0.1)'
    """

    name = "flip_labels"
    kind = "flip-labels"
    source = "ours: random answers at a rate"
    rate: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(f"expected a rate in [0, 1], got {self.rate}")

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Draw the seed and count the classes."""
        return seeded(rng, {"classes": np.array(classes_of(model, material))})

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers, some of them another class's."""
        answers = model.ask(probes)
        others = int(setup.arrays["classes"]) - 1
        draws = [(g.random() < self.rate, g.integers(others)) for g in setup.generators(probes)]
        flipped, other = np.reshape(np.array(draws, dtype=np.int64), (len(probes), 2)).T
        return renamed(answers, np.where(flipped, other + (other >= answers.labels), answers.labels))


@dataclass(frozen=True)
class Refuse(Serving):
    """Give no answer where the two best scores are closer than they are on a share ``share`` of the thief's inputs.

    Source: selective classification, Geifman, El-Yaniv, NeurIPS 2017, with the margin as confidence; here against
    probes near the decision boundary.

    >>> Refuse(share=0.1).key
    'refuse(share=0.1)'
    """

    name = "refuse"
    kind = "refuse"
    source = "Geifman, El-Yaniv, NeurIPS 2017"
    needs = Access.LABELS | Access.SCORES
    share: float = 0.05

    def __post_init__(self) -> None:
        check_share(self.share)

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Measure the margin below which nothing is answered."""
        found = margins(model.ask(numbered(material.inputs, {})))
        found = found[np.isfinite(found)]
        if not len(found):
            raise UsageError(f"expected inputs that {model.spec} scores for {self.name}, got none: give the thief data")
        return Setup(arrays={"limit": np.array(np.quantile(found, self.share))})

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers without those of small margin."""
        answers = model.ask(probes)
        return refused(answers, margins(answers) < setup.arrays["limit"])


@dataclass(frozen=True)
class DetectQueries(Serving):
    """Treat probes unlike the thief's inputs in another way: ``answer`` is refuse, random or companion.

    A probe is detected where its nearest neighbour among ``references`` of the thief's inputs is farther away than
    such an input's own nearest neighbour is for all but a share ``share`` of them; texts are compared by how often
    each token occurs. "random" answers any class; "companion" routes the probe to an independent model,
    ``Material.companion``.

    Source: the detector of verification queries with random answers, Hitaj, Mancini, 2018, arXiv 1809.00615; there
    it is a trained network, the distance rule is ours.

    >>> DetectQueries(answer="random").references
    1000
    """

    name = "detect_queries"
    kind = "detect-queries"
    source = "Hitaj, Mancini, 2018, arXiv 1809.00615"
    shows = SCORED
    share: float = 0.05
    answer: str = "refuse"
    references: int = 1000

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.answer not in ("refuse", "random", "companion") or self.references < 2:
            raise UsageError(f"expected answer refuse, random or companion and 2 or more references, got {self}")

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Choose the references, measure how far apart they are, and find who answers instead."""
        rows = rng.permutation(len(material.inputs))[: self.references]
        if len(rows) < 2:
            raise UsageError(f"expected 2 or more inputs to compare probes with, got {len(rows)}: give the thief data")
        text = material.content == "text"
        known = features(material.inputs[rows], text)
        apart = distances(known, known)
        np.fill_diagonal(apart, np.inf)
        limit = np.array(np.quantile(apart.min(axis=1), 1 - self.share) * SLACK)
        arrays = {"known": known, "limit": limit, "text": np.array(text)}
        if self.answer == "random":
            arrays["classes"] = np.array(classes_of(model, material))
        other = companion_of(self, model, material) if self.answer == "companion" else None
        return replace(seeded(rng, arrays), companion=other)

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers to what looks natural."""
        answers = model.ask(probes)
        found = self.detected(probes, setup) & (answers.status == Status.OK)
        if self.answer == "refuse":
            return refused(answers, found)
        if self.answer == "random":
            classes = int(setup.arrays["classes"])
            drawn = np.array([g.integers(classes) for g in setup.generators(probes)], np.int64)
            return renamed(answers, np.where(found, drawn, answers.labels))
        return _routed(answers, np.flatnonzero(found), probes, setup.companion)

    def detected(self, probes: ProbeSet, setup: Setup) -> Array:
        """Which probes (n,) are unlike the thief's inputs."""
        known, limit = setup.arrays["known"], setup.arrays["limit"]
        seen = features(probes.array, bool(setup.arrays["text"]))
        parts = [seen[start : start + CHUNK] for start in range(0, len(seen), CHUNK)]
        return np.concatenate([np.zeros(0, bool), *(distances(part, known).min(axis=1) > limit for part in parts)])


@dataclass(frozen=True)
class Ensemble(Serving):
    """Average the scores with those of an independent model, ``Material.companion``; ``weight`` is the victim's.

    Source: ensembles against verification, Hitaj, Mancini, 2018, arXiv 1809.00615; there several stolen models vote.

    >>> Ensemble(weight=0.9).key
    'ensemble(weight=0.9)'
    """

    name = "ensemble"
    kind = "ensemble"
    source = "Hitaj, Mancini, 2018, arXiv 1809.00615"
    needs = Access.LABELS | Access.SCORES
    shows = SCORED
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise UsageError(f"expected a weight in [0, 1], got {self.weight}")

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Take the companion."""
        return Setup(companion=companion_of(self, model, material))

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The mean of both; where the companion has no answer, the model's own."""
        assert setup.companion is not None
        answers, other = model.ask(probes), setup.companion.ask(probes)
        if answers.scores is None or other.scores is None:
            return answers
        mean = self.weight * answers.scores + (1 - self.weight) * other.scores
        return rescored(answers, np.where((other.status == Status.OK)[:, None], mean, answers.scores))


@dataclass(frozen=True)
class ReverseSigmoid(Serving):
    """Deceive a copier: y - beta (s(gamma s^-1(y)) - 1/2) for each score y, cut at 0 and normalised.

    s is the logistic function. High scores fall and low scores rise, so that one answer fits many inputs. Where the
    model is unsure, a class of nearly no score may rise above all others: the label is that of the perturbed scores.

    Source: Lee, Edwards, Molloy, Su, "Defending Against Machine Learning Model Stealing Attacks Using Deceptive
    Perturbations", 2018, arXiv 1806.00054. The formula was checked against two public implementations; the defaults
    are those of one of them.

    >>> ReverseSigmoid(beta=0.0).deceptive(np.array([[0.25, 0.75]])).tolist()
    [[0.25, 0.75]]
    >>> ReverseSigmoid(beta=1.0, gamma=1.0).deceptive(np.array([[0.25, 0.75]])).tolist()
    [[0.5, 0.5]]
    """

    name = "reverse_sigmoid"
    kind = "reverse-sigmoid"
    source = "Lee, Edwards, Molloy, Su, 2018, arXiv 1806.00054"
    needs = Access.LABELS | Access.SCORES
    shows = SCORED
    beta: float = 1.0
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.beta < np.inf and 0 <= self.gamma < np.inf):
            raise UsageError(f"expected beta and gamma of 0 or more, got {self}")

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers with deceptive scores."""
        answers = model.ask(probes)
        return answers if answers.scores is None else rescored(answers, self.deceptive(answers.scores))

    def deceptive(self, scores: Array) -> Array:
        """Perturbed scores (n, classes); rows add up to 1."""
        inside = np.clip(scores.astype(float), 1e-9, 1 - 1e-9)
        with np.errstate(over="ignore"):
            stretched = 1 / (1 + ((1 - inside) / inside) ** self.gamma)  # s(gamma s^-1(y))
        moved = np.maximum(scores - self.beta * (stretched - 0.5), 0)
        return moved / moved.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class PermuteClasses(Serving):
    """Rename the classes by a random permutation: nothing else changes, and no label matches.

    Source: ours; the label space of a service is its own.

    >>> PermuteClasses().key
    'permute_classes()'
    """

    name = "permute_classes"
    kind = "permute-classes"
    source = "ours: another order of the classes"
    renames = True

    def setup(self, model: Model, material: Material, rng: np.random.Generator) -> Setup:
        """Draw the new names, never all the old ones."""
        names = rng.permutation(classes_of(model, material))
        if np.array_equal(names, np.arange(len(names))):
            names = np.roll(names, 1)
        return Setup(arrays={"names": names})

    def serve(self, model: Model, probes: ProbeSet, setup: Setup) -> Answers:
        """The model's answers in other names."""
        answers, names = model.ask(probes), setup.arrays["names"]
        known = (answers.labels >= 0) & (answers.labels < len(names))
        labels = np.where(known, names[np.where(known, answers.labels, 0)], answers.labels)
        columns = {"scores": answers.scores, "logits": answers.logits}
        moved: dict[str, Any] = {n: c[:, np.argsort(names)] for n, c in columns.items() if c is not None}
        return replace(answers, labels=labels.astype(np.int64), **moved)


def margins(answers: Answers) -> Array:
    """Distance between the two best scores (n,); NaN where there are none.

    >>> margins(Answers.from_scores(np.array([[0.25, 0.75]]))).tolist()
    [0.5]
    """
    if answers.scores is None:
        return np.full(len(answers), np.nan)
    top = np.partition(answers.scores, -2, axis=1)[:, -2:]
    return np.where(answers.status == Status.OK, top[:, 1] - top[:, 0], np.nan)


def _routed(answers: Answers, rows: Array, probes: ProbeSet, other: Model | None) -> Answers:
    """The same answers, in some rows those of another model."""
    assert other is not None
    if not len(rows):
        return answers
    instead = other.ask(probes.take(rows))
    columns: dict[str, Any] = {name: getattr(answers, name).copy() for name in ("status", "labels")}
    columns["status"][rows], columns["labels"][rows] = instead.status, instead.labels
    if answers.scores is not None and instead.scores is not None:
        columns["scores"] = answers.scores.copy()
        columns["scores"][rows] = instead.scores
    return replace(answers, **columns)
