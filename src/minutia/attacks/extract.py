"""Attacks that learn from answers alone: distillation and extraction, into a fresh model."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from minutia.attacks.crafting import BATCH, away_from, gradients, made_up, no_text, varied
from minutia.attacks.learn import TrainingAttack, chosen, counted, labelled, one_of, taught
from minutia.core.access import Access
from minutia.core.answers import Answers, Status
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.model import GradientModel, Model, Plan, TrainableModel
from minutia.core.probe import numbered

LEAST = 1e-7
"""Probabilities below this count as this: a zero would have no logarithm."""
TIMES = {"augmented": 4, "synthetic": 8}
"""Made-up questions per input that the thief has."""
GROWN = 8
"""Inputs of the last round of Jacobian augmentation per input that the thief has."""


@dataclass(frozen=True)
class Extraction(TrainingAttack):
    """Ask the victim and train a fresh student on what it answers.

    ``inputs`` says what is asked: the thief's own inputs; "augmented", those and four variations of each; "synthetic",
    eight times as many out of nothing; "foreign", ``Material.foreign``; "jacobian", own inputs grown by steps along the
    student's gradients. ``student`` is the victim's architecture or "other", ``Material.student``.
    """

    needs = Access.LABELS
    reset = "everything"
    keeps_weights = False
    epochs: int = 15
    learning_rate: float = 2e-3
    inputs: str = "own"
    student: str = "same"
    rounds: int = 4
    step: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("inputs", self.inputs, ("own", "foreign", "augmented", "synthetic", "jacobian"))
        one_of("student", self.student, ("same", "other"))
        if self.rounds < 1 or not 0 < self.step <= 1:
            raise UsageError(f"expected rounds of 1 or more and a step in (0, 1], got {self.rounds} and {self.step}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Ask, then train; the copy keeps nothing of the victim's weights."""
        pupil = self.pupil(model, material)
        if self.inputs == "jacobian":
            return self.by_rounds(model, pupil, material, rng)
        asked = self.questions(material, rng)
        inputs, targets = self.answers(model, asked)
        copy = taught(pupil, inputs, targets, self.plan(), rng)
        return counted(copy, len(inputs), self.plan().steps(len(inputs)), len(asked))

    def pupil(self, model: Model, material: Material) -> TrainableModel:
        """Whose architecture is trained afresh."""
        found = model if self.student == "same" else material.student
        if found is None:
            raise UsageError(f"expected another architecture for {self.name}(student=other), got none: name a student")
        if not isinstance(found, TrainableModel) or Access.TRAIN not in found.access:
            raise UsageError(f"expected a student that can be trained, got {found.spec}: name one with student=other")
        return found

    def questions(self, material: Material, rng: np.random.Generator) -> Array:
        """What the victim is asked, as it will receive it."""
        if self.inputs == "foreign":
            if material.foreign is None:
                raise UsageError(f"expected foreign data for {self.name}(inputs=foreign), got none: name some")
            found = material.foreign[0]
            return material.stored(found[chosen(len(found), self.share, rng)])
        own, _ = self.own(material, rng)
        if self.inputs == "augmented":
            return np.concatenate([own, varied(material, own, TIMES["augmented"] * len(own), rng)])
        return made_up(material, TIMES["synthetic"] * len(own), rng) if self.inputs == "synthetic" else own

    def answers(self, model: Model, asked: Array) -> tuple[Array, Array]:
        """The inputs that were answered, with the targets that the student learns."""
        return labelled(model, asked)

    def by_rounds(self, model: Model, pupil: TrainableModel, material: Material, rng: np.random.Generator) -> Model:
        """Jacobian augmentation: inputs double in every round; nothing is asked twice.

        It starts from so few inputs that the last round has eight times the thief's share (from all, if 3 rounds
        or fewer).
        """
        no_text(f"{self.name}(inputs=jacobian)", material)
        fresh, _ = self.own(material, rng)
        fresh = fresh[chosen(len(fresh), min(1.0, GROWN * 2.0**-self.rounds), rng)]
        copy, steps, asked, parts = pupil, 0, 0, []
        for left in range(self.rounds, -1, -1):
            parts.append(self.answers(model, fresh))
            asked += len(fresh)
            inputs, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
            plan = self.plan() if not left else replace(self.plan(), epochs=max(1, self.epochs // 3))
            copy = taught(pupil, inputs, targets, plan, rng)
            steps += plan.steps(len(inputs))
            if left:
                fresh = self.stepped(copy, inputs, material)
        return counted(copy, len(inputs), steps, asked)

    def stepped(self, student: Model, inputs: Array, material: Material) -> Array:
        """Each input one sign step away from what the student calls it, towards the student's boundary.

        Papernot et al. step along the gradient of the answered class itself; beyond the boundary answers tell more.
        """
        if not isinstance(student, GradientModel):
            raise UsageError(f"expected a student with gradients for inputs=jacobian, got {student.spec}: use another")
        labels = np.concatenate([student.ask(numbered(x, {})).labels for x in _batches(inputs)])
        low, high = material.bounds
        uphill = gradients(student, inputs, away_from(np.maximum(labels, 0)))
        return material.stored(inputs + self.step * (high - low) * np.sign(uphill))


@dataclass(frozen=True)
class Distil(Extraction):
    """Train a fresh copy on the victim's probabilities at a temperature.

    Source: Hinton, Vinyals, Dean, 2015, arXiv 1503.02531; as an attack in Lukas et al., arXiv 2108.04974.

    >>> Distil().temperature
    3.0
    """

    name = "distil"
    kind = "distil"
    source = "Hinton, Vinyals, Dean, 2015, arXiv 1503.02531"
    presets: ClassVar = {
        "wrt": {"epochs": 60, "optimiser": "sgd", "learning_rate": 0.1, "schedule": "steps", "temperature": 3.0},
        "modeldiff": {"optimiser": "sgd", "learning_rate": 1e-2},
    }
    temperature: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise UsageError(f"expected a positive temperature, got {self.temperature}")

    def plan(self) -> Plan:
        """The student is compared at the same temperature."""
        return replace(super().plan(), temperature=self.temperature)

    def answers(self, model: Model, asked: Array) -> tuple[Array, Array]:
        """The victim's softened probabilities, or its labels where it shows nothing else."""
        return softened(model, asked, self.temperature)


@dataclass(frozen=True)
class ExtractProbabilities(Extraction):
    """Train a fresh copy on the probabilities that the victim answers, as they are.

    Source: Tramèr et al., USENIX Security 2016, arXiv 1609.02943; Orekondy et al., CVPR 2019, arXiv 1812.02766.

    >>> ExtractProbabilities(inputs="foreign").inputs
    'foreign'
    """

    name = "extract_probabilities"
    kind = "extract-probabilities"
    source = "Orekondy et al., CVPR 2019, arXiv 1812.02766"
    presets: ClassVar = {
        "sac": {"epochs": 200, "optimiser": "sgd", "learning_rate": 0.1, "schedule": "cosine"},
        "knockoff": {"inputs": "foreign"},
    }

    def answers(self, model: Model, asked: Array) -> tuple[Array, Array]:
        """The victim's probabilities, or its labels where it shows nothing else."""
        return softened(model, asked, 1.0)


@dataclass(frozen=True)
class ExtractLabels(Extraction):
    """Train a fresh copy on nothing but the labels that the victim answers.

    Source: Tramèr et al., USENIX Security 2016, arXiv 1609.02943; Papernot et al., AsiaCCS 2017, arXiv 1602.02697
    (inputs grown by the student's gradients); Orekondy et al., CVPR 2019, arXiv 1812.02766 (foreign inputs).

    >>> ExtractLabels.from_key("extract_labels/deepjudge-jba").inputs
    'jacobian'
    """

    name = "extract_labels"
    kind = "extract-labels"
    source = "Tramèr et al., USENIX Security 2016, arXiv 1609.02943"
    # deepjudge-jba starts from 150 inputs there. deepjudge-es also climbs the student's gradients, 30 steps of 0.01 in
    # each of 10 rounds of 20,000; here its inputs stay as they are drawn.
    presets: ClassVar = {
        "wrt": {"epochs": 60},
        "sac": {"epochs": 200, "optimiser": "sgd", "learning_rate": 0.05, "schedule": "cosine"},
        "knockoff": {"inputs": "foreign"},
        "deepjudge-jba": {"inputs": "jacobian", "rounds": 6, "step": 0.01},
        "deepjudge-es": {"inputs": "synthetic"},
    }


def softened(model: Model, asked: Array, temperature: float) -> tuple[Array, Array]:
    """The inputs that a model answers, and its probabilities at a temperature (n, classes); else its labels (n,)."""
    parts = [model.ask(numbered(x, {})) for x in _batches(asked)]
    if any(part.scores is None for part in parts):
        return labelled(model, asked)
    fine = np.concatenate([part.status == Status.OK for part in parts])
    if not fine.any():
        raise ModelError(f"expected answers from {model.spec}, got none for {len(asked)} inputs: it has diverged")
    logits = np.concatenate([_logits(part) for part in parts])[fine] / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return asked[fine], powers / powers.sum(axis=1, keepdims=True)


def _logits(answers: Answers) -> Array:
    """Logits (n, classes) up to a constant per row."""
    if answers.logits is not None:
        return np.nan_to_num(answers.logits.astype(np.float64))
    assert answers.scores is not None
    return np.log(np.maximum(np.nan_to_num(answers.scores.astype(np.float64)), LEAST))


def _batches(inputs: Array) -> list[Array]:
    return np.array_split(inputs, max(1, -(-len(inputs) // (8 * BATCH))))
