"""Agreement on noise: the other naive baseline, free and without data."""

from dataclasses import dataclass

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.method import Enrolment
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.methods.classifiers.match_rate import MatchRate


@dataclass(frozen=True)
class NoiseAgreement(MatchRate):
    """Gaussian noise with the data's mean and deviation per channel; score = share of equal labels.

    Of text, each token is drawn by itself as often as the data holds it: numbers of tokens have no mean.

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
        draw = _tokens if material.content == "text" else _gaussian
        noise = draw(material.inputs, self.probes, rng)
        return Enrolment(numbered(material.stored(noise), {"channel": "array"}), {})


def _gaussian(inputs: Array, count: int, rng: np.random.Generator) -> Array:
    """Noise (count, *shape) with the mean and deviation of each channel, or of everything where there are none."""
    axes = (0, *range(2, inputs.ndim)) if inputs.ndim == 4 else tuple(range(inputs.ndim))
    mean, spread = inputs.mean(axis=axes, keepdims=True), inputs.std(axis=axes, keepdims=True)
    return rng.normal(mean, spread, (count, *inputs.shape[1:]))


def _tokens(inputs: Array, count: int, rng: np.random.Generator) -> Array:
    """Token numbers (count, length) in no order."""
    return rng.choice(inputs.ravel(), (count, *inputs.shape[1:]))
