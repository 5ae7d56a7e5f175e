"""The toy network as plain layers: forward, backward, and training with Adam or SGD."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import ModelError, UsageError
from minutia.core.model import Plan, Steer

Layer = tuple[Array, Array]
Update = Callable[[Sequence[Array], float], None]


def softmax(logits: Array) -> Array:
    """Probabilities of logits (n, classes) in float32; rows with NaN or infinity stay without meaning.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def drawn(rng: np.random.Generator, inputs: int, outputs: int) -> Layer:
    """He initialisation: variance 2 / inputs, zero biases."""
    w = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
    return w.astype(np.float32), np.zeros(outputs, np.float32)


def prepared(layers: Sequence[Layer], plan: Plan, rng: np.random.Generator) -> list[Layer]:
    """Copy the layers; those that the plan resets, and a last layer for other classes, are drawn anew."""
    kept = {"nothing": len(layers), "last": len(layers) - 1, "everything": 0}[plan.reset]
    shapes = [w.shape for w, _ in layers]
    if plan.classes:
        kept, shapes[-1] = min(kept, len(layers) - 1), (shapes[-1][0], plan.classes)
    return [(w.copy(), b.copy()) for w, b in layers[:kept]] + [drawn(rng, *shape) for shape in shapes[kept:]]


def as_probabilities(targets: Array, count: int, classes: int) -> Array:
    """Labels (n,) or probabilities as probabilities (n, classes)."""
    y = np.asarray(targets)
    if y.shape == (count, classes) and y.dtype.kind == "f":
        return y.astype(np.float32)
    if y.shape != (count,) or y.dtype.kind not in "iu" or (count and not 0 <= y.min() <= y.max() < classes):
        raise ModelError(
            f"expected labels ({count},) below {classes} or probabilities ({count}, {classes}), "
            f"got {y.dtype} of shape {y.shape}: train with the classes the model was built for"
        )
    return np.asarray(np.eye(classes, dtype=np.float32)[y])


def forward(layers: Sequence[Layer], x: Array) -> list[Array]:
    """Run the network: the input, every hidden activation (n, hidden), and the logits."""
    steps = [x]
    with np.errstate(invalid="ignore", over="ignore"):
        for i, (w, b) in enumerate(layers):
            x = x @ w + b
            x = x if i == len(layers) - 1 else np.maximum(x, 0)
            steps.append(x)
    return steps


def fit(
    layers: list[Layer], x: Array, y: Array, plan: Plan, rng: np.random.Generator, steer: Steer | None = None
) -> list[Layer]:
    """Train in place on minibatches; weights that diverge stay as they come, without an error."""
    frozen = len(layers) - 1 if plan.layers == "last" else 0
    pull = None if steer is None else _pull(layers, x, steer)
    update = {"adam": _adam, "sgd": _sgd}[plan.optimiser]([value for pair in layers[frozen:] for value in pair], plan)
    with np.errstate(all="ignore"):
        for epoch in range(plan.epochs):
            order, rate = rng.permutation(len(x)), plan.rate_at(epoch / plan.epochs)
            for start in range(0, len(x), plan.batch_size):
                rows = order[start : start + plan.batch_size]
                update(_slopes(layers, x[rows], y[rows], plan.temperature, frozen, pull and (*pull, rows)), rate)
    return layers


def _pull(layers: Sequence[Layer], x: Array, steer: Steer) -> tuple[int, Array, float]:
    """Which activation is steered, where to (n, count), and how much."""
    hidden = {f"h{i}": i + 1 for i in range(len(layers) - 1)}
    if steer.units not in hidden:
        raise UsageError(f"expected a group of hidden units ({', '.join(hidden) or 'none'}), got {steer.units!r}")
    needed = (len(x), layers[hidden[steer.units] - 1][1].size)
    if np.shape(steer.targets) != needed:
        raise UsageError(f"expected targets {needed} for {steer.units}, got {np.shape(steer.targets)}")
    return hidden[steer.units], np.asarray(steer.targets, np.float32), steer.weight


def _slopes(
    layers: Sequence[Layer],
    x: Array,
    y: Array,
    temperature: float,
    frozen: int,
    pull: tuple[int, Array, float, Array] | None,
) -> list[Array]:
    """Gradients of the mean of T^2 CE(softmax(logits/T), y), and of the pull, by every parameter that is trained."""
    steps = forward(layers, x)
    slope = temperature * (softmax(steps[-1] / np.float32(temperature)) - y) / np.float32(len(x))
    found: list[Array] = []
    for i in range(len(layers) - 1, frozen - 1, -1):
        found = [steps[i].T @ slope, slope.sum(axis=0), *found]
        slope = slope @ layers[i][0].T
        if pull is not None and pull[0] == i:
            _, targets, weight, rows = pull
            slope = slope + np.float32(2 * weight / steps[i].size) * (steps[i] - targets[rows])
        slope = slope * (steps[i] > 0)
    return found


def _adam(values: Sequence[Array], plan: Plan) -> Update:
    """Adam (Kingma & Ba 2015) with decoupled weight decay (Loshchilov & Hutter 2019)."""
    first, second = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values]
    step = 0

    def update(slopes: Sequence[Array], learning_rate: float) -> None:
        nonlocal step
        step += 1
        rate = learning_rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for value, slope, m, v in zip(values, slopes, first, second, strict=True):
            m += 0.1 * (slope - m)
            v += 0.001 * (slope**2 - v)
            value -= learning_rate * plan.weight_decay * value + rate * m / (np.sqrt(v) + 1e-8)

    return update


def _sgd(values: Sequence[Array], plan: Plan) -> Update:
    """Stochastic gradient descent with momentum; weight decay is added to the gradient."""
    speeds = [np.zeros_like(v) for v in values]

    def update(slopes: Sequence[Array], learning_rate: float) -> None:
        for value, slope, speed in zip(values, slopes, speeds, strict=True):
            speed *= plan.momentum
            speed += slope + plan.weight_decay * value
            value -= learning_rate * speed

    return update
