"""Attacks that change weights without data: pruning, quantisation, half precision, noise."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from minutia.core.access import Access
from minutia.core.attack import Attack
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import Model, WeightModel


@dataclass(frozen=True)
class _WeightAttack(Attack):
    """Change each weight tensor by itself; vectors (biases, norms) stay unless the attack says otherwise."""

    needs = Access.WEIGHTS

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Rebuild the model from changed tensors."""
        assert isinstance(model, WeightModel)
        changed = {n: w if w.ndim < 2 else self.change(w, rng).astype(w.dtype) for n, w in model.tensors()}
        return model.rebuilt(changed)

    @abstractmethod
    def change(self, weights: Array, rng: np.random.Generator) -> Array:
        """The attacked tensor."""


@dataclass(frozen=True)
class Prune(_WeightAttack):
    """Zero the smallest weights of each tensor; its share is drawn within ``spread`` of ``fraction``.

    Sensitivity differs from layer to layer, so in practice the shares do too; the presets take one share for all.

    Source: magnitude pruning as in Cao et al., AsiaCCS 2021, and Lukas et al., "SoK: How Robust is Image
    Classification Deep Neural Network Watermarking?", IEEE S&P 2022, arXiv 2108.04974.

    >>> Prune(fraction=0.5, spread=0.0).change(np.array([[1.0, -3.0], [2.0, 4.0]]), np.random.default_rng(0)).tolist()
    [[0.0, -3.0], [0.0, 4.0]]
    """

    name = "prune"
    kind = "prune"
    source = "Lukas et al., IEEE S&P 2022, arXiv 2108.04974"
    presets: ClassVar = {
        "wrt": {"fraction": 0.5, "spread": 0.0},
        "deepjudge": {"fraction": 0.6, "spread": 0.0},  # as in the demonstration that comes with the paper
        **{f"modeldiff-{share}": {"fraction": share / 100, "spread": 0.0} for share in (20, 50, 80)},
        **{f"ipguard-{share}": {"fraction": share / 100, "spread": 0.0} for share in range(10, 100, 10)},
    }
    fraction: float = 0.4
    spread: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.fraction - self.spread <= self.fraction + self.spread <= 1:
            raise UsageError(f"expected fraction - spread and fraction + spread within [0, 1], got {self}")

    def change(self, weights: Array, rng: np.random.Generator) -> Array:
        """Keep the largest 1 - share by absolute value."""
        share = self.fraction + rng.uniform(-self.spread, self.spread)
        return np.where(np.abs(weights) <= np.quantile(np.abs(weights), share), 0.0, weights)


@dataclass(frozen=True)
class Quantise(_WeightAttack):
    """Round weights to 2^bits levels, symmetric per tensor, rounding down or up at random in proportion.

    The preset ``wrt`` has the paper's 5 bits; its epoch of training afterwards is a second step,
    ``quantise/wrt+fine_tune_all(epochs=1)``.

    Source: post-training quantisation as an attack, Lukas et al., IEEE S&P 2022, arXiv 2108.04974.

    >>> sorted(set(Quantise(bits=2).change(np.array([[1.0, -1.0, 0.0]]), np.random.default_rng(0))[0].tolist()))
    [-1.0, 0.0, 1.0]
    """

    name = "quantise"
    kind = "quantise"
    source = "Lukas et al., IEEE S&P 2022, arXiv 2108.04974"
    presets: ClassVar = {"wrt": {"bits": 5}, "int8": {"bits": 8}, "int4": {"bits": 4}}
    bits: int = 8

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UsageError(f"expected 2 to 16 bits, got {self.bits}")

    def change(self, weights: Array, rng: np.random.Generator) -> Array:
        """Stochastic rounding, so that two quantised copies are two copies."""
        step = max(float(np.abs(weights).max()), 1e-12) / (2 ** (self.bits - 1) - 1)
        return np.floor(weights / step + rng.random(weights.shape)) * step


@dataclass(frozen=True)
class Half(Attack):
    """Store every tensor in 16 bits and read it back: ``float16`` or ``bfloat16``.

    What is too large for the format becomes its largest number.

    Source: reduced precision as in Li et al., "ModelDiff", ISSTA 2021, arXiv 2106.08890.

    >>> Half().change(np.array([1.0, 1.0001, 1e9])).tolist()
    [1.0, 1.0, 65504.0]
    """

    name = "half"
    kind = "half"
    needs = Access.WEIGHTS
    source = "Li et al., ISSTA 2021, arXiv 2106.08890"
    format: str = "float16"

    def __post_init__(self) -> None:
        if self.format not in ("float16", "bfloat16"):
            raise UsageError(f"expected format float16 or bfloat16, got {self.format!r}")

    def run(self, model: Model, material: Material, rng: np.random.Generator) -> Model:
        """Rebuild the model from rounded tensors, vectors included."""
        assert isinstance(model, WeightModel)
        return model.rebuilt({name: self.change(w).astype(w.dtype) for name, w in model.tensors()})

    def change(self, weights: Array) -> Array:
        """The tensor, rounded to the nearest numbers of the format."""
        import ml_dtypes

        largest = float(ml_dtypes.finfo(self.format).max)
        return np.clip(weights, -largest, largest).astype(np.dtype(self.format))


@dataclass(frozen=True)
class Noise(_WeightAttack):
    """Add Gaussian noise of ``strength`` times each tensor's standard deviation.

    Source: weight noise as in Chen et al., "Copy, Right?", IEEE S&P 2022, arXiv 2112.05588.

    >>> Noise(strength=0.0).change(np.eye(2), np.random.default_rng(0)).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """

    name = "noise"
    kind = "noise"
    source = "Chen et al., IEEE S&P 2022, arXiv 2112.05588"
    strength: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.strength < np.inf:
            raise UsageError(f"expected a strength of 0 or more, got {self.strength}")

    def change(self, weights: Array, rng: np.random.Generator) -> Array:
        """One independent draw per weight."""
        return weights + rng.normal(0.0, self.strength * float(weights.std()), weights.shape)
