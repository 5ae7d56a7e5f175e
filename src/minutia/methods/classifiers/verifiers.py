"""Small networks that read answers and say copy or innocent: one for all probes, or one for each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from minutia.core.digest import Array
from minutia.methods.classifiers.crafting import Adam

RATE = 3e-3
"""Adam's step for the weights of a verifier."""
NAMES = ("first", "shift", "second", "offset")


@dataclass(eq=False)
class Verifier:
    """One hidden layer of rectified units over features (models, probes, classes), or one such per probe.

    Weights are stacked by verifier (v): first (v, inputs, hidden), shift (v, hidden), second (v, hidden), offset (v,).
    With one verifier its inputs are all answers in a row; with one per probe each reads the answer to its own probe.
    """

    first: Array
    shift: Array
    second: Array
    offset: Array

    @classmethod
    def fresh(cls, probes: int, classes: int, hidden: int, local: bool, rng: np.random.Generator) -> "Verifier":
        """Random weights, scaled by the number of inputs (He et al., ICCV 2015)."""
        count, inputs = (probes, classes) if local else (1, probes * classes)
        first = rng.normal(0, np.sqrt(2 / inputs), (count, inputs, hidden))
        second = rng.normal(0, np.sqrt(1 / hidden), (count, hidden))
        return cls(first, np.zeros((count, hidden)), second, np.zeros(count))

    @classmethod
    def of(cls, arrays: Mapping[str, Array]) -> "Verifier":
        """The inverse of ``arrays``."""
        return cls(*(arrays[name].astype(np.float64) for name in NAMES))

    def arrays(self) -> dict[str, Array]:
        """The weights by name, as they are stored."""
        return {name: getattr(self, name).astype(np.float32) for name in NAMES}

    def rows(self, seen: Array) -> Array:
        """Features as each verifier reads them (models, v, inputs)."""
        return seen.reshape(len(seen), len(self.offset), -1)

    def __call__(self, seen: Array) -> Array:
        """Log-odds (models, v) that a model is a copy."""
        hidden = np.maximum(np.einsum("mvi,vih->mvh", self.rows(seen), self.first) + self.shift, 0)
        return np.asarray(np.einsum("mvh,vh->mv", hidden, self.second) + self.offset)

    def backward(self, seen: Array, copies: Array) -> tuple[Array, dict[str, Array]]:
        """Mean cross-entropy's slope in the features (models, probes, classes) and in the weights.

        ``copies`` (models,) is 1 for a copy and 0 for an innocent model.
        """
        rows = self.rows(seen)
        before = np.einsum("mvi,vih->mvh", rows, self.first) + self.shift
        hidden = np.maximum(before, 0)
        odds = np.einsum("mvh,vh->mv", hidden, self.second) + self.offset
        error = (1 / (1 + np.exp(-np.clip(odds, -30, 30))) - copies[:, None]) / odds.size
        through = error[..., None] * self.second * (before > 0)
        weights = {
            "first": np.einsum("mvi,mvh->vih", rows, through),
            "shift": through.sum(axis=0),
            "second": np.einsum("mv,mvh->vh", error, hidden),
            "offset": error.sum(axis=0),
        }
        return np.einsum("mvh,vih->mvi", through, self.first).reshape(seen.shape), weights


class Descent:
    """Adam for a verifier's weights, with decoupled decay (Loshchilov and Hutter, ICLR 2019)."""

    def __init__(self, verifier: Verifier, decay: float = 1e-2) -> None:
        self.verifier, self.decay = verifier, decay
        self._adams = {name: Adam(getattr(verifier, name)) for name in NAMES}

    def advance(self, slopes: Mapping[str, Array]) -> None:
        """One step downhill."""
        for name, slope in slopes.items():
            weights = getattr(self.verifier, name)
            weights -= RATE * (self._adams[name].moved(slope) + self.decay * weights)
