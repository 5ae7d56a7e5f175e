"""Shared by methods that craft or choose probes on many models: pools of candidates, and ascent over an ensemble."""

from collections.abc import Callable, Sequence

import numpy as np

from minutia.core.answers import Answers
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import GradientModel, Model
from minutia.core.probe import numbered

BATCH = 4096
"""Candidates that are asked at a time."""
SPREAD = 0.3
"""Deviation of the noise put on inputs, in units of the input range."""
Slope = Callable[[Array], Array]
"""d(loss)/d(logits) (n, classes) of one model's logits (n, classes)."""


def candidates(material: Material, count: int, rng: np.random.Generator) -> Array:
    """Natural, mixed, cut and noisy inputs and uniform noise, a fifth each, as a suspect receives them: (n, *shape).

    Natural ones are the material's own and held-out inputs, at most a fifth. Of text, where numbers are names, only
    natural inputs and such that take each token from one of two inputs.
    """
    parts = [material.inputs, *([material.held_out[0]] if material.held_out is not None else [])]
    natural = np.concatenate(parts)
    share = max(1, count // 5)
    some = natural[rng.permutation(len(natural))[:share]]
    first, second = (natural[rng.integers(0, len(natural), share)] for _ in range(2))
    low, high = material.bounds
    if material.content == "text":
        made = [np.where(rng.random(first.shape) < 0.5, first, second)]
    else:
        weight = rng.uniform(0.35, 0.65, (share, *[1] * (natural.ndim - 1)))
        noise = rng.normal(0, SPREAD * (high - low), first.shape)
        uniform = rng.uniform(low, high, (share, *natural.shape[1:]))
        made = [first * weight + second * (1 - weight), _cut(first, second, rng), second + noise, uniform]
    return np.unique(material.stored(np.concatenate([some, *made])), axis=0)


def _cut(first: Array, second: Array, rng: np.random.Generator) -> Array:
    """The first inputs with one side of the second ones, along a random axis."""
    made = first.copy()
    for row in range(len(made)):
        axis = int(rng.integers(max(0, made.ndim - 3), made.ndim - 1))
        size = made.shape[axis + 1]
        if size > 2:
            upto = int(rng.integers(max(1, size // 4), size - size // 4))
            np.moveaxis(made[row], axis, 0)[:upto] = np.moveaxis(second[row], axis, 0)[:upto]
    return made


def answered(model: Model, points: Array) -> Answers:
    """Ask many candidates, some at a time."""
    parts = [points[i : i + BATCH] for i in range(0, len(points), BATCH)]
    return Answers.joined([model.ask(numbered(part, {})) for part in parts])


def differentiable(models: Sequence[Model], like: GradientModel, inputs: Array) -> list[GradientModel]:
    """Those of the models that give gradients for the classes of ``like``; ``inputs`` holds one or more to try."""
    able, classes = [m for m in models if isinstance(m, GradientModel)], like.linearise(inputs[:1])[0].shape[1]
    return [m for m in able if m.linearise(inputs[:1])[0].shape[1] == classes]


def by_recipe(models: Sequence[GradientModel]) -> list[list[GradientModel]]:
    """Models in groups that were made in one way, so that each way counts alike however many there are."""
    groups: dict[str, list[GradientModel]] = {}
    for model in models:
        groups.setdefault(model.card.recipe, []).append(model)
    return list(groups.values())


def ascend(
    points: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    rate: float,
    clip: Callable[[Array], Array],
) -> Array:
    """Follow a noisy gradient (n, *shape) downhill with one Adam for all rows, clipped at every step.

    Source: Kingma and Ba, ICLR 2015.
    """
    at = np.array(points, dtype=np.float32)
    mean, square = np.zeros_like(at), np.zeros_like(at)
    for step in range(1, steps + 1):
        slope = gradient(at)
        mean += 0.1 * (slope - mean)
        square += 0.01 * (slope**2 - square)
        moved = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
        at = clip(at - rate * moved).astype(np.float32)
    return at


def pulled(model: GradientModel, points: Array, slope: Slope) -> Array:
    """d(loss)/d(points) of one model, its loss given by its slope in the logits."""
    logits, pull_back = model.linearise(points)
    return pull_back(slope(logits.astype(np.float64)).astype(np.float32))


def enough(models: Sequence[Model], least: int, what: str, remedy: str) -> None:
    """Refuse an ensemble that is too small to say anything about fresh models."""
    if len(models) < least:
        raise UsageError(f"expected {least} or more {what}, got {len(models)}: {remedy}")
