"""Inputs that attacks make: by gradients, by small changes, or out of nothing."""

from collections.abc import Callable

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.core.material import Material
from minutia.core.model import GradientModel

BATCH = 256
"""Rows differentiated at a time."""


def no_text(name: str, material: Material) -> None:
    """Refuse token numbers, which have no gradient to follow."""
    if material.content == "text":
        raise UsageError(f"expected images or tables for {name}, got text: numbers of tokens have no small changes")


def probabilities(logits: Array) -> Array:
    """Softmax in float64; a row without finite logits becomes even.

    >>> probabilities(np.array([[0.0, 0.0], [np.nan, 1.0]])).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    fine = np.isfinite(logits).all(axis=1, keepdims=True)
    powers = np.where(fine, logits, 0.0).astype(np.float64)
    powers = np.exp(powers - powers.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def gradients(model: GradientModel, inputs: Array, slope_of: Callable[[Array, Array], Array]) -> Array:
    """Gradients by the inputs, in batches; ``slope_of(logits, rows)`` is d(objective)/d(logits). Never NaN."""
    found = np.zeros(inputs.shape, np.float32)
    for start in range(0, len(inputs), BATCH):
        rows = np.arange(start, min(start + BATCH, len(inputs)))
        logits, pull_back = model.linearise(inputs[rows])
        found[rows] = np.nan_to_num(pull_back(np.asarray(slope_of(logits, rows), np.float32)), posinf=0.0, neginf=0.0)
    return found


def away_from(labels: Array) -> Callable[[Array, Array], Array]:
    """The slope of the cross-entropy with these labels (n,): uphill is away from them."""

    def slope(logits: Array, rows: Array) -> Array:
        found = probabilities(logits)
        found[np.arange(len(rows)), labels[rows]] -= 1
        return found

    return slope


def worst_case(
    model: GradientModel,
    inputs: Array,
    labels: Array,
    material: Material,
    rng: np.random.Generator,
    *,
    epsilon: float,
    step: float,
    iterations: int,
) -> Array:
    """Projected gradient ascent on the loss, within ``epsilon`` of every number, from a random start.

    ``epsilon`` and ``step`` are shares of the input range. Madry et al., ICLR 2018, arXiv 1706.06083.
    """
    low, high = material.bounds
    reach, pace = epsilon * (high - low), step * (high - low)
    least, most = np.maximum(inputs - reach, low), np.minimum(inputs + reach, high)
    points = np.clip(inputs + rng.uniform(-reach, reach, inputs.shape), least, most).astype(np.float32)
    for _ in range(iterations):
        uphill = gradients(model, points, away_from(labels))
        points = np.clip(points + pace * np.sign(uphill), least, most).astype(np.float32)
    return points


def across(
    model: GradientModel, starts: Array, labels: Array, goals: Array, material: Material, *, turns: int = 12
) -> tuple[Array, Array]:
    """Points on the boundary between the model's classes ``labels`` and ``goals`` (n,), nearest to the starts.

    Each turn goes a little further than the linear model says is enough (after DeepFool, Moosavi-Dezfooli et al.,
    CVPR 2016, arXiv 1511.04599); then the way there is halved until it ends at the boundary. Returns the points
    and which starts (n,) reached a boundary at all.
    """
    low, high = material.bounds
    near, far = np.array(starts, np.float32), np.array(starts, np.float32)
    axes = tuple(range(1, starts.ndim))

    def lead(logits: Array, rows: Array) -> Array:
        picked = np.arange(len(rows))
        return np.asarray(logits[picked, labels[rows]] - logits[picked, goals[rows]], np.float64)

    def slope(logits: Array, rows: Array) -> Array:
        found = np.zeros(logits.shape)
        found[np.arange(len(rows)), labels[rows]] += 1
        found[np.arange(len(rows)), goals[rows]] -= 1
        return found

    every = np.arange(len(starts))
    for _ in range(turns):
        gap = lead(model.linearise(far)[0], every)
        uphill = gradients(model, far, slope)
        size = np.maximum((uphill.astype(np.float64) ** 2).sum(axis=axes), 1e-12)
        length = np.where(gap > 0, (gap + 1e-3) / size, 0.0).reshape(-1, *[1] * len(axes))
        far = np.clip(far - 1.1 * length * uphill, low, high).astype(np.float32)
    reached = lead(model.linearise(far)[0], every) <= 0
    for _ in range(10):
        middle = ((near + far) / 2).astype(np.float32)
        over = (lead(model.linearise(middle)[0], every) <= 0).reshape(-1, *[1] * len(axes))
        near, far = np.where(over, near, middle), np.where(over, middle, far)
    return far, reached


def varied(material: Material, inputs: Array, count: int, rng: np.random.Generator) -> Array:
    """New inputs from old ones: a shift by a pixel, noise, or a mixture of two; tokens are exchanged instead."""
    first, second = (inputs[rng.integers(len(inputs), size=count)] for _ in range(2))
    if material.content == "text":
        return np.where(rng.random(first.shape) < 0.25, second, first)  # every token stands where one stood before
    low, high = material.bounds
    way = rng.integers(3, size=count)
    for row in np.flatnonzero(way == 0) if inputs.ndim >= 4 else ():
        first[row] = np.roll(first[row], rng.integers(-1, 2, size=2), axis=(-2, -1))
    noise = rng.normal(0, 0.1 * (high - low), first.shape) * _rows(way == 1, first)
    share = _rows(np.where(way == 2, rng.uniform(0, 0.5, count), 0.0), first)
    return material.stored((1 - share) * first + share * second + noise)


def made_up(material: Material, count: int, rng: np.random.Generator) -> Array:
    """Inputs out of nothing: clouds of smooth noise for images, even random numbers for tables, tokens for text."""
    shape, (low, high) = (count, *material.inputs.shape[1:]), material.bounds
    if material.content == "text":
        return material.stored(rng.integers(int(np.ceil(low)), int(np.floor(high)) + 1, shape))
    found = rng.random(shape)
    if len(shape) >= 4:
        from scipy.ndimage import gaussian_filter

        for row in range(count):
            found[row] = gaussian_filter(found[row], [0.0] * (len(shape) - 3) + [rng.uniform(0.3, 1.5)] * 2)
        axes = tuple(range(1, len(shape)))
        least, most = found.min(axis=axes, keepdims=True), found.max(axis=axes, keepdims=True)
        found = (found - least) / np.maximum(most - least, 1e-12)
    return material.stored(low + found * (high - low))


def _rows(values: Array, like: Array) -> Array:
    """One number per row, ready to be multiplied with rows of any shape."""
    return np.asarray(values, np.float64).reshape(-1, *[1] * (like.ndim - 1))
