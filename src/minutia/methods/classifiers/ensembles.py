"""Shared by methods that craft or choose probes on many models: pools of candidates, and who answers them."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

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
GROUP = 4
"""Innocent models of one recipe that are told apart from the others; fewer say nothing by themselves."""
Some = TypeVar("Some", bound=Model)


def candidates(material: Material, count: int, rng: np.random.Generator) -> Array:
    """Natural, mixed, cut and noisy inputs and uniform noise, a fifth each, as a suspect receives them: (n, *shape).

    Natural ones are the material's own and held-out inputs, at most a fifth. Of text, where numbers are names, only
    natural inputs and such that take each token from one of two inputs.
    """
    natural = natural_inputs(material)
    share = max(1, count // 5)
    some = natural[rng.permutation(len(natural))[:share]]
    first, second = (natural[rng.integers(0, len(natural), share)] for _ in range(2))
    made = [mixed(first, second, material, rng)]
    if material.content != "text":
        low, high = material.bounds
        noise = rng.normal(0, SPREAD * (high - low), first.shape)
        uniform = rng.uniform(low, high, first.shape)
        made += [_cut(first, second, rng), second + noise, uniform]
    return np.unique(material.stored(np.concatenate([some, *made])), axis=0)


def natural_inputs(material: Material) -> Array:
    """The material's own and held-out inputs (n, *shape)."""
    return np.concatenate([material.inputs, *([material.held_out[0]] if material.held_out is not None else [])])


def mixed(first: Array, second: Array, material: Material, rng: np.random.Generator) -> Array:
    """Two inputs in one, each with a weight of .35 to .65; of text, each token from one of the two."""
    if material.content == "text":
        return np.where(rng.random(first.shape) < 0.5, first, second)
    weight = rng.uniform(0.35, 0.65, (len(first), *[1] * (first.ndim - 1)))
    return np.asarray(first * weight + second * (1 - weight))


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


def by_recipe(models: Sequence[Some]) -> list[list[Some]]:
    """Models in groups that were made in one way, so that each way counts alike however many there are."""
    return [[models[row] for row in rows] for rows in rows_by_recipe(models)]


def rows_by_recipe(models: Sequence[Model]) -> list[list[int]]:
    """The places of models that were made in one way, one list for each way."""
    groups: dict[str, list[int]] = {}
    for row, model in enumerate(models):
        groups.setdefault(model.card.recipe, []).append(row)
    return list(groups.values())


def roots(models: Iterable[Model]) -> frozenset[str]:
    """Where the models come from: copies of one model have one root."""
    return frozenset(model.card.root for model in models)


def enough(models: Sequence[Model], least: int, what: str, remedy: str) -> None:
    """Refuse an ensemble that is too small to say anything about fresh models."""
    if len(models) < least:
        raise UsageError(f"expected {least} or more {what}, got {len(models)}: {remedy}")
