"""Arrays of a data set, checked and brought into one form: from an ``.npz`` file or from any other source."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import FileError, UsageError

MAX_BYTES = 8 * 2**30
CONTENTS = ("image", "tabular", "text")
MAX_TOKEN = 2**24
"""Up to here float32 keeps whole numbers apart."""


class Parts(NamedTuple):
    """A data set before rows or classes are chosen; see ``Dataset`` for the fields."""

    inputs: Array
    labels: Array
    test_inputs: Array
    test_labels: Array
    bounds: tuple[float, float]
    levels: int | None
    content: str


def npz_parts(path: Path, content: str = "") -> Parts:
    """Read ``x_train, y_train`` (or ``inputs, labels``) and, if they are there, ``x_test, y_test``."""
    found = _read_npz(path)
    names = ("x_train", "y_train") if "x_train" in found else ("inputs", "labels")
    if names[0] not in found or names[1] not in found:
        raise FileError(
            f"expected arrays x_train and y_train (or inputs and labels) in {path}, got {', '.join(found) or 'none'}"
        )
    train = _pair(found, *names, path)
    if "x_test" not in found or "y_test" not in found:
        return parts_of(train, None, content, str(path))
    return parts_of(train, _pair(found, "x_test", "y_test", path), content, str(path))


def parts_of(train: tuple[Array, Array], test: tuple[Array, Array] | None, content: str, place: str) -> Parts:
    """Bring checked arrays into one form; without a test part a fifth is held out.

    uint8 images become float32 in [0, 1] with channels first; other inputs stay as they are. ``content`` "" stands
    for tabular if inputs are rows of numbers, else image. Text is whole numbers, one per token.
    """
    (raw, labels), (test_raw, test_labels) = (train, test) if test else _split(*train)
    if test_raw.shape[1:] != raw.shape[1:] or test_raw.dtype != raw.dtype:
        raise FileError(
            f"expected x_test like x_train {raw.shape[1:]}, got {test_raw.shape[1:]} {test_raw.dtype} in {place}"
        )
    if content == "text":
        return _text(raw, labels, test_raw, test_labels, place)
    levels = 256 if raw.dtype == np.uint8 else None
    inputs = _as_inputs(raw)
    bounds = (0.0, 1.0) if levels else (float(inputs.min()), float(inputs.max()))
    kind = content or ("tabular" if inputs.ndim == 2 else "image")
    return Parts(inputs, labels, _as_inputs(test_raw), test_labels, bounds, levels, kind)


def checked_pair(x: Array, y: Array, names: tuple[str, str], place: str) -> tuple[Array, Array]:
    """Inputs (n, *shape) of finite numbers, and labels (n,) that count from 0, as int64."""
    if x.ndim < 2 or not x.size or x.dtype.kind not in "fiub" or not np.isfinite(x).all():
        raise FileError(f"expected finite inputs (n, …) as {names[0]} in {place}, got {x.dtype} of shape {x.shape}")
    if y.ndim != 1 or y.dtype.kind not in "fiu" or not ((y >= 0) & (y < 2**31) & (y == np.round(y))).all():
        raise FileError(f"expected labels 0, 1, … (n,) as {names[1]} in {place}, got {y.dtype} of shape {y.shape}")
    if len(x) != len(y):
        raise FileError(f"expected one label per input in {place}, got {len(x)} inputs and {len(y)} labels")
    return x, y.astype(np.int64)


def check_size(count: int, shape: tuple[int, ...], what: str, *, of: int = 4) -> None:
    """Refuse what would not fit into memory before anything is allocated.

    >>> check_size(2**20, (3, 1024, 1024), "photos")
    Traceback (most recent call last):
    minutia.core.errors.UsageError: expected at most 8 GiB of data, got 12288 GiB from photos: give a part of it
    """
    size = count * int(np.prod([of, *shape], dtype=object))
    if size > MAX_BYTES:
        raise UsageError(
            f"expected at most {MAX_BYTES >> 30} GiB of data, got {size >> 30} GiB from {what}: give a part of it"
        )


def _split(raw: Array, labels: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """A fifth in a fixed random order, for data that comes without a test part."""
    order = np.random.default_rng(0).permutation(len(raw))
    held, kept = order[: len(raw) // 5], order[len(raw) // 5 :]
    return (raw[kept], labels[kept]), (raw[held], labels[held])


def _text(raw: Array, labels: Array, test_raw: Array, test_labels: Array, place: str) -> Parts:
    """Numbers of tokens (n, length): as many levels as there are tokens, one apart."""
    both = np.concatenate([raw, test_raw])
    whole = raw.dtype.kind != "b" and ((both >= 0) & (both <= MAX_TOKEN) & (both == np.round(both))).all()
    if raw.ndim != 2 or not whole:
        raise FileError(
            f"expected text as whole numbers of tokens from 0 (n, length) in {place}, got {raw.dtype} of shape "
            f"{raw.shape}: leave content=text out"
        )
    last = max(int(both.max()), 1)
    inputs, test_inputs = raw.astype(np.float32), test_raw.astype(np.float32)
    return Parts(inputs, labels, test_inputs, test_labels, (0.0, float(last)), last + 1, "text")


def _pair(found: Mapping[str, Array], inputs: str, labels: str, path: Path) -> tuple[Array, Array]:
    return checked_pair(found[inputs], found[labels], (inputs, labels), str(path))


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        if not path.is_file():
            raise FileError(
                f"expected data (an .npz file, a folder of images, sklearn:NAME, text:NAME or torch:module:factory), "
                f"found nothing at {path}: check the spelling"
            )
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"expected at most {MAX_BYTES >> 30} GiB of data, got {path}: give a part of it")
        with np.load(path, allow_pickle=False) as archive:
            wanted = {"x_train", "y_train", "x_test", "y_test", "inputs", "labels"}
            return {name: archive[name] for name in archive.files if name in wanted}
    except FileError:
        raise
    except Exception as error:
        raise FileError(f"expected a readable .npz of plain arrays, got {path}: {error}") from error


def _as_inputs(raw: Array) -> Array:
    """uint8 images to [0, 1] with channels first; floats as they are."""
    if raw.dtype != np.uint8:
        return np.ascontiguousarray(raw, dtype=np.float32)
    scaled = raw.astype(np.float32) / 255
    if scaled.ndim == 3:
        return scaled[:, None]
    return np.ascontiguousarray(np.moveaxis(scaled, 3, 1)) if scaled.ndim == 4 and raw.shape[3] in (1, 3, 4) else scaled
