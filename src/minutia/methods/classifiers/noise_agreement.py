"""Agreement on noise: the other naive baseline, free and without data."""

from dataclasses import dataclass

import numpy as np

from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.match_rate import MatchRate


@dataclass(frozen=True)
class NoiseAgreement(MatchRate):
    """Gaussian noise with the data's mean and deviation per channel; score = share of equal labels.

    H0: the suspect was trained without the owner's model. Innocent models agree far above chance on noise, because
    most of it falls into one or two classes: the null must be trained models, never one over the number of classes.

    Source: the random-input baseline of Godinot, Le Merrer, Penzo, Taïani, Trédan, AAAI 2025, arXiv 2412.13021.

    >>> NoiseAgreement(probes=20).key
    'noise_agreement(probes=20)@1'
    """

    name = "noise_agreement"
    source = "Godinot, Le Merrer, Penzo, Taïani, Trédan, AAAI 2025, arXiv 2412.13021"

    probes: int = 500

    def __post_init__(self) -> None:
        if self.probes < 2:
            raise UsageError(f"expected 2 or more probes, got {self}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Draw the noise, clip it to the valid box, store it as a suspect will receive it."""
        shape = material.inputs.shape[1:]
        axes = (0, *range(2, material.inputs.ndim)) if len(shape) == 3 else tuple(range(material.inputs.ndim))
        mean = material.inputs.mean(axis=axes, keepdims=True)
        spread = material.inputs.std(axis=axes, keepdims=True)
        noise = rng.normal(mean, spread, (self.probes, *shape))
        return Enrolment(numbered(material.stored(noise), {"channel": "array"}), {})
