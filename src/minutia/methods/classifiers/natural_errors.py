"""Natural errors (AKH): the naive baseline that many crafted methods fail to beat."""

from dataclasses import dataclass

import numpy as np

from minutia.core.errors import ModelError, UsageError
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.match_rate import MatchRate


@dataclass(frozen=True)
class NaturalErrors(MatchRate):
    """Inputs that the owner's model gets wrong; score = share on which the suspect makes the same mistake.

    H0: the suspect was trained without the owner's model. No gradients and no crafting, and no screening either:
    this is the baseline. Innocent models share mistakes, so it ranks well and convicts slowly; one over the number
    of classes is no null for it. Errors are ordered by the owner's confidence where scores are known, taken from
    held-out inputs first.

    Source: "Anna Karenina heuristic" in Godinot, Le Merrer, Penzo, Taïani, Trédan, AAAI 2025, arXiv 2412.13021.

    >>> NaturalErrors().key
    'natural_errors(probes=100)@1'
    """

    name = "natural_errors"
    source = "Godinot, Le Merrer, Penzo, Taïani, Trédan, AAAI 2025, arXiv 2412.13021"

    probes: int = 100

    def __post_init__(self) -> None:
        if self.probes < 2:
            raise UsageError(f"expected 2 or more probes, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Collect the owner's errors, held-out ones first, each part by falling confidence."""
        parts = [part for part in (material.held_out, (material.inputs, material.labels)) if part is not None]
        errors = np.concatenate([_errors(model, material.stored(x), y) for x, y in parts])
        if len(errors):
            _, first = np.unique(errors.reshape(len(errors), -1), axis=0, return_index=True)
            errors = errors[np.sort(first)][: self.probes]
        if len(errors) < 2:
            raise ModelError(
                f"expected a model that makes mistakes on the given data, got {len(errors)}: "
                "give more data that it was not trained on, or use another method"
            )
        return Enrolment(numbered(errors, {"channel": "array"}), {})


def _errors(model: Model, inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Wrongly answered inputs (n, *shape), the most confident first."""
    answers = model.ask(numbered(inputs, {}))
    wrong = np.flatnonzero((answers.labels != labels) & (answers.labels >= 0))
    if answers.scores is not None:
        wrong = wrong[np.argsort(-answers.scores[wrong].max(axis=1), kind="stable")]
    return inputs[wrong]
