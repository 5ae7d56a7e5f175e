"""Large matrices of a checkpoint, multiplied and sampled without holding them."""

import numpy as np

from minutia.core.digest import Array
from minutia.core.tensors import Tensors
from minutia.methods.weights.roles import Matrix

RUN = 16
"""Neighbours that are drawn together where rows are large: they are fetched in one request."""
STEP = 2**21
"""Numbers of a large matrix that are held at once."""


def product(source: Tensors, matrix: Matrix, turn: Array) -> Array:
    """Rows of the outputs times ``turn`` (inputs, k): (outputs, k), some rows at a time.

    >>> from minutia.core.tensors import Arrays
    >>> product(Arrays({"w": np.eye(2)}), Matrix("w", 2, 2), np.array([[1.0], [2.0]])).tolist()
    [[1.0], [2.0]]
    """
    found = np.empty((matrix.outputs, turn.shape[1]), np.float32)
    step = matrix.outputs if matrix.swapped or matrix.expert is not None else max(1, STEP // matrix.inputs)
    for at in range(0, matrix.outputs, step):
        places = np.arange(at, min(at + step, matrix.outputs))
        found[places] = matrix.rows(source, places) @ turn
    return found


def transposed_product(source: Tensors, matrix: Matrix, turn: Array) -> Array:
    """What reads each input, times ``turn`` (outputs, k): (inputs, k), some outputs at a time.

    >>> from minutia.core.tensors import Arrays
    >>> held = Arrays({"w": np.array([[1.0, 0.0], [1.0, 1.0]])})
    >>> transposed_product(held, Matrix("w", 2, 2), np.array([[1.0], [2.0]])).tolist()
    [[3.0], [2.0]]
    """
    if matrix.swapped or matrix.expert is not None:
        return np.asarray(matrix.columns(source) @ turn)
    found = np.zeros((matrix.inputs, turn.shape[1]), np.float32)
    step = max(1, STEP // matrix.inputs)
    for at in range(0, matrix.outputs, step):
        places = np.arange(at, min(at + step, matrix.outputs))
        found += matrix.rows(source, places).T @ turn[places]
    return found


def sampled(count: int, most: int, rng: np.random.Generator, large: bool) -> Array:
    """Random numbers below ``count``, sorted, ``most`` of them at most; RUN neighbours each time where rows are large.

    >>> sampled(100, 32, np.random.default_rng(0), True).tolist() == list(range(32, 64))
    True
    """
    if not large or count <= most:
        return np.sort(rng.permutation(count)[:most])
    starts = RUN * rng.permutation(count // RUN)[: most // RUN]
    return np.sort((starts[:, None] + np.arange(RUN)).reshape(-1))
