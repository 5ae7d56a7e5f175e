"""DeepJudge with open weights: whether the layers of a suspect put out what the owner's do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minutia.core.access import Access
from minutia.core.answers import Observation
from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.fingerprint import Fingerprint
from minutia.core.material import Material
from minutia.core.method import Enrolment, Method
from minutia.core.model import Model
from minutia.core.probe import numbered
from minutia.core.units import layered
from minutia.methods.classifiers.deepjudge import certain
from minutia.stats.matching import cosines, matched
from minutia.stats.sequential import Standardiser

SEEDS = "seeds"
LEAST_SPREAD = 0.01
"""Smallest deviation of a score among spent models that is believed."""
DRAW = 2112
"""Seed of the order in which equal units are matched."""


@dataclass(frozen=True)
class DeepJudgeLayers(Method):
    """Outputs of hidden layers on the owner's most certain inputs; score = mean likeness over layers, 0 to 1.

    H0: the suspect was trained without the owner's model. Nothing is asked: the suspect's weights are open, and
    ``inputs`` inputs that the owner's model answers correctly, held-out ones where there are some, are run through it.
    Every unit is divided by its own largest output (NNOD, the normalised neuron output distance), or set to 0 or 1 at
    half of it (LAD, the layer activation distance); units are first matched by how their outputs correlate, so that
    another order of units changes nothing. A layer's likeness is 1 minus the mean of both distances; units without a
    partner, and layers that the suspect lacks, are worth 0. Independent networks of one recipe are rather alike in
    these eyes, so the score is ranked among them; ``unit_matching`` sees more with less.

    Source: Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song, "Copy, Right? A Testing Framework for Copyright Protection
    of Deep Learning Models", IEEE S&P 2022, arXiv 2112.05588; the reason to match first: Yan, Pan, Zhang, Yang, USENIX
    Security 2023, arXiv 2303.09732.

    >>> DeepJudgeLayers().key
    'deepjudge_layers(inputs=200)@1'
    """

    name = "deepjudge_layers"
    h0 = "the suspect was trained without my model: it is one more model of the null's population"
    source = "Chen, Wang, Peng, Sun, Cheng, Ji, Ma, Li, Song, IEEE S&P 2022, arXiv 2112.05588"
    owner_needs = Access.LABELS | Access.WEIGHTS | Access.FEATURES
    suspect_needs = Access.WEIGHTS | Access.FEATURES
    reads = Access.WEIGHTS | Access.FEATURES
    serves = frozenset({"image", "tabular"})

    inputs: int = 200

    def __post_init__(self) -> None:
        if self.inputs < 2:
            raise UsageError(f"expected 2 or more inputs, got {self.inputs}")

    def enrol(self, model: Model, material: Material, rng: np.random.Generator) -> Enrolment:
        """Keep the inputs and what the owner's layers put out for them; there is nothing to ask."""
        seeds, _ = certain(model, material, self.inputs)
        if len(seeds) < 2:
            raise ModelError(f"expected 2 or more inputs that {model.spec} answers correctly, got {len(seeds)}")
        probes = numbered(np.empty((0, *material.inputs.shape[1:]), np.float32), {"channel": "weights"})
        return Enrolment(probes, {SEEDS: seeds, **self.read(model, {SEEDS: seeds})})

    def read(self, model: Model, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs (n, units) of every layer for the owner's inputs."""
        known, groups = layered(model, self.name)
        seen = known.features(arrays[SEEDS])
        return {f"{self.name}.{place}": seen[group.name].astype(np.float32) for place, group in enumerate(groups)}

    def score(self, fp: Fingerprint, observation: Observation) -> float:
        """Mean likeness over the owner's layers; NaN where the suspect's weights are not open."""
        own = _layers(fp.arrays, self.name)
        seen = _layers(observation.arrays, self.name)
        if not seen:
            return float("nan")
        told = [likeness(a, b) for a, b in zip(own, seen, strict=False)]
        return float(np.sum(told) / len(own))

    def path(self, fp: Fingerprint, observation: Observation, prefixes: Sequence[Sequence[str]]) -> Array:
        """The same at every look: layers are read once."""
        return np.full(len(prefixes), self.score(fp, observation))

    def scale(self, spent: Array, sizes: Array) -> Standardiser:
        """The spent models' deviation, at least ``LEAST_SPREAD``."""
        if len(spent) < 2:
            return Standardiser(np.zeros(len(sizes)), np.full(len(sizes), LEAST_SPREAD))
        return Standardiser(spent.mean(axis=0), np.maximum(spent.std(axis=0, ddof=1), LEAST_SPREAD))


def likeness(own: Array, seen: Array) -> float:
    """One minus the mean of NNOD and LAD between two layers (n, a) and (n, b), units matched by correlation.

    Units of the owner that never put out anything are left out; a layer of such alone is worth 0.

    >>> layer = np.random.default_rng(0).random((20, 4))
    >>> round(likeness(layer, 3 * layer[:, [2, 0, 1, 3]]), 6)
    1.0
    """
    one, two = (_scaled(layer) for layer in (own, seen))
    if not one.shape[1] or len(one) != len(two):
        return 0.0
    partners = matched(cosines((one - one.mean(axis=0)).T, (two - two.mean(axis=0)).T), np.random.default_rng(DRAW))
    pairs = np.flatnonzero(partners >= 0)
    left, right = one[:, pairs], two[:, partners[pairs]]
    output = np.abs(left - right).mean(axis=0)
    active = (np.abs(left) > 0.5) != (np.abs(right) > 0.5)
    told = 1 - (output + active.mean(axis=0)) / 2
    return float(np.sum(told) / one.shape[1])


def _scaled(layer: Array) -> Array:
    """Every unit that ever puts out anything, divided by its largest output."""
    size = np.abs(layer).max(axis=0, initial=0.0)
    return np.asarray(layer[:, size > 0] / size[size > 0], dtype=np.float64)


def _layers(arrays: Mapping[str, Array], name: str) -> list[Array]:
    """Layers in the order of the network."""
    found: list[Array] = []
    while (array := arrays.get(f"{name}.{len(found)}")) is not None:
        found.append(array)
    return found
