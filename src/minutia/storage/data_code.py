"""Data that the user's own code gives: ``torch:module:factory`` or ``torch:file.py:factory``."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minutia.core.code import one_line, own_code
from minutia.core.digest import Array
from minutia.core.errors import UsageError
from minutia.storage.data_arrays import Parts, check_size, checked_pair, parts_of


def code_parts(target: str, content: str) -> Parts:
    """Call ``module:factory`` or ``file.py:factory``, which returns a map-style data set or a pair (train, test).

    A map-style data set has a length and gives pairs (input, label) by number; inputs are tensors or arrays of one
    shape. It is read once, from 0 to the end, and must give the same every time.
    """
    found = _called(own_code(target, "torch", UsageError), target)
    train, test = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    train_pair = _converted(train, target)
    return parts_of(train_pair, None if test is None else _converted(test, target), content, target)


def _converted(data: Any, target: str) -> tuple[Array, Array]:
    """Every pair of a data set as arrays (n, *shape) and (n,)."""
    try:
        count = len(data)
        first = _input(data, 0) if count else np.empty(0)
    except Exception as error:
        raise UsageError(
            f"expected {target} to return a data set with a length that gives pairs (input, label), got "
            f"{type(data).__name__}: {one_line(error)}"
        ) from error
    check_size(count, first.shape, target, of=max(4, first.itemsize))
    inputs, labels = np.empty((count, *first.shape), first.dtype), []
    for row in range(count):
        inputs[row], label = _pair(data, row, first, target)
        labels.append(label)
    return checked_pair(inputs, np.array(labels), ("inputs", "labels"), target)


def _pair(data: Any, row: int, first: Array, target: str) -> tuple[Array, Any]:
    """One input like the first, and its label as a plain number."""
    try:
        x, y = data[row]
        plain, label = _plain(x), _plain(y).item()
    except Exception as error:
        raise UsageError(
            f"expected a pair (input, label) as item {row} of {target}, got {type(error).__name__}: {one_line(error)}; "
            "labels are whole numbers"
        ) from error
    if plain.shape != first.shape or plain.dtype != first.dtype:
        raise UsageError(
            f"expected inputs of one kind, {first.dtype} of shape {first.shape}, got {plain.dtype} of shape "
            f"{plain.shape} as item {row} of {target}: resize them in the data set"
        )
    return plain, label


def _input(data: Any, row: int) -> Array:
    x, _ = data[row]
    return _plain(x)


def _plain(value: Any) -> Array:
    """A tensor (wherever it lives), an array or a number as an array."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _called(factory: Callable[[], Any], target: str) -> Any:
    try:
        return factory()
    except Exception as error:
        raise UsageError(
            f"expected {target} to return a data set, got {type(error).__name__}: {one_line(error)}; "
            "MINUTIA_DEBUG=1 shows where"
        ) from error
