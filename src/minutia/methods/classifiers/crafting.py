"""Shared by methods that move inputs: slopes of usual losses, and the steps that follow them."""

from collections.abc import Callable

import numpy as np

from minutia.core.digest import Array
from minutia.core.model import GradientModel

Slope = Callable[[Array], Array]
"""d(loss)/d(logits) (n, classes) of one model's logits (n, classes)."""


def softmax(logits: Array) -> Array:
    """Probabilities (…, classes), as precise as the logits.

    >>> softmax(np.log([[1.0, 3.0]])).round(2).tolist()
    [[0.25, 0.75]]
    """
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def lead(logits: Array, label: Array) -> tuple[Array, Array]:
    """By how much the class ``label`` (n,) leads the best other one (n,), and which that is (n,).

    >>> [found.tolist() for found in lead(np.array([[2.0, 1.0, 5.0]]), np.array([0]))]
    [[-3.0], [2]]
    """
    rows, others = np.arange(len(logits)), logits.copy()
    others[rows, label] = -np.inf
    best = others.argmax(axis=1)
    return logits[rows, label] - logits[rows, best], best


def lead_slope(logits: Array, label: Array, into: Array | bool, gap: Array | float) -> Array:
    """d(loss)/d(logits) (n, classes) of a move into the class ``label`` (n,), or out of it, until ``gap`` (n,).

    >>> logits, into = np.array([[2.0, 1.0, 0.0]] * 3), np.array([True, False, True])
    >>> lead_slope(logits, np.array([1, 0, 0]), into, np.full(3, 0.5)).tolist()
    [[1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    rows = np.arange(len(logits))
    ahead, best = lead(logits, label)
    sign = np.where(into, np.where(ahead < gap, 1.0, 0.0), np.where(ahead > -gap, -1.0, 0.0))
    slope = np.zeros_like(logits)
    slope[rows, label] -= sign
    slope[rows, best] += sign
    return slope


def pulled(model: GradientModel, points: Array, slope: Slope) -> Array:
    """d(loss)/d(points) of one model, its loss given by its slope in the logits."""
    logits, pull_back = model.linearise(points)
    return pull_back(slope(logits.astype(np.float64)).astype(np.float32))


class Adam:
    """Steps that mean and mean square of a noisy slope suggest; ``tiny`` (> 0) is added to the root of the square.

    Source: Kingma and Ba, ICLR 2015.
    """

    def __init__(self, like: Array, tiny: float = 1e-8) -> None:
        self._mean, self._square, self._step, self._tiny = np.zeros_like(like), np.zeros_like(like), 0, tiny

    def moved(self, slope: Array) -> Array:
        """The next step uphill, of about unit length in each dimension."""
        self._step += 1
        self._mean += 0.1 * (slope - self._mean)
        self._square += 0.01 * (slope**2 - self._square)
        mean, square = self._mean / (1 - 0.9**self._step), self._square / (1 - 0.99**self._step)
        return np.asarray(mean / (np.sqrt(square) + self._tiny))


def ascend(
    points: Array,
    gradient: Callable[[Array], Array],
    steps: int,
    rate: float,
    clip: Callable[[Array], Array],
    tiny: float = 1e-8,
) -> Array:
    """Follow a noisy gradient (n, *shape) downhill with one Adam for all rows, clipped at every step."""
    at = np.array(points, dtype=np.float32)
    adam = Adam(at, tiny)
    for _ in range(steps):
        at = clip(at - rate * adam.moved(gradient(at))).astype(np.float32)
    return at


def descend(
    model: GradientModel,
    starts: Array,
    slope: Callable[[Array, Array], Array],
    near: Callable[[Array, Array], Array],
    rate: float,
    steps: int,
) -> Array:
    """Signed gradient steps of all rows at a time, projected by ``near(points, rows)``; a row without slope is done.

    ``slope(logits, rows)`` is d(loss)/d(logits) (k, classes) of the rows (k,) that are still going.

    Source: Madry, Makelov, Schmidt, Tsipras, Vladu, ICLR 2018, arXiv 1706.06083.
    """
    at, going = np.array(starts, dtype=np.float32), np.arange(len(starts))
    for _ in range(steps):
        logits, pull_back = model.linearise(at[going])
        push = slope(logits.astype(np.float64), going)
        moved = near(at[going] - rate * np.sign(pull_back(push.astype(np.float32))), going)
        still = push.any(axis=1)
        at[going[still]] = moved[still]
        going = going[still]
        if not len(going):
            break
    return at


def boxed(points: Array, around: Array, reach: float, bounds: tuple[float, float]) -> Array:
    """Points clipped to ``reach`` of the points that they started ``around``, and to the bounds of inputs.

    >>> boxed(np.array([0.0, 0.9, 2.0]), np.array([0.5, 0.8, 1.0]), 0.2, (0.0, 1.0)).tolist()
    [0.3, 0.9, 1.0]
    """
    return np.clip(np.clip(points, around - reach, around + reach), *bounds)


def bisected(across: Callable[[Array], Array], end: Array, halvings: int) -> Array:
    """Ways (n,) just across a line, between 0 on this side of it and ``end`` (n,), all rows halved at a time.

    >>> bisected(lambda way: way > 0.3, np.ones(1), 3).tolist()
    [0.375]
    """
    near, far = np.zeros(len(end)), end
    for _ in range(halvings):
        middle = (near + far) / 2
        there = across(middle)
        near, far = np.where(there, near, middle), np.where(there, middle, far)
    return far


def wide(values: Array, like: Array) -> Array:
    """One value per row (n,) in the shape of rows (n, 1, …).

    >>> wide(np.ones(2), np.ones((2, 3, 3))).shape
    (2, 1, 1)
    """
    return values.reshape(-1, *[1] * (like.ndim - 1))
