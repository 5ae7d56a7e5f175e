"""Labelled data by specification: ``sklearn:digits`` or an ``.npz`` file, with a slice of rows if wanted."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from minutia.core.digest import Array, array_digest, canonical_json, sha256
from minutia.core.errors import FileError, MissingExtraError, UsageError

MAX_BYTES = 8 * 2**30


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs (n, *shape) float32 with labels (n,), and a held-out part that no model is trained on.

    ``bounds`` is the valid input box; ``levels`` the number of grey levels that inputs are stored with.
    """

    spec: str
    inputs: Array
    labels: Array
    test_inputs: Array
    test_labels: Array
    bounds: tuple[float, float]
    levels: int | None

    @property
    def digest(self) -> str:
        """Digest of all four arrays."""
        parts = (self.inputs, self.labels, self.test_inputs, self.test_labels)
        return sha256(canonical_json([array_digest(a) for a in parts]).encode())


def load_dataset(spec: str) -> Dataset:
    """Load ``sklearn:digits`` or ``file.npz``; ``?rows=0:700`` keeps those rows of the training part.

    An npz file holds ``x_train, y_train`` and, if it has them, ``x_test, y_test`` (else a fifth is held out);
    uint8 images become float32 in [0, 1] with channels first.
    """
    try:
        found = Path(spec.partition("?")[0]).stat()
        return _loaded(spec, (found.st_mtime_ns, found.st_size))
    except (OSError, ValueError):  # not a file: a name, or nothing, which is said below
        return _loaded(spec, (0, 0))


@lru_cache(maxsize=8)
def _loaded(spec: str, stamp: tuple[int, int]) -> Dataset:
    """Kept between calls, because every task of a zoo asks for it; a file that changed is read again."""
    place, _, query = spec.partition("?")
    rows = _rows(query, spec)
    parts = _digits() if place == "sklearn:digits" else _npz(Path(place))
    inputs, labels, test_inputs, test_labels, bounds, levels = parts
    if not len(inputs[rows]):
        raise UsageError(f"expected rows within 0:{len(inputs)}, got none with {spec!r}")
    return Dataset(spec, inputs[rows], labels[rows], test_inputs, test_labels, bounds, levels)


_Parts = tuple[Array, Array, Array, Array, tuple[float, float], int | None]


def _rows(query: str, spec: str) -> slice:
    if not query:
        return slice(None)
    name, _, text = query.partition("=")
    try:
        first, last = (int(t) if t else None for t in text.split(":"))
    except ValueError:
        first, name = None, ""
        last = None
    if name != "rows":
        raise UsageError(f"expected ?rows=FIRST:LAST after the data, got {spec!r}")
    return slice(first, last)


def _digits() -> _Parts:
    """1,797 real 8x8 images in a fixed order: 1,400 to train on, 397 held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingExtraError("scikit-learn", "demo", "the digits data set") from None
    found = load_digits()
    order = np.random.default_rng(1797).permutation(len(found.target))
    images = (found.images / 16).astype(np.float32)[order, None]
    labels = found.target[order].astype(np.int64)
    return images[:1400], labels[:1400], images[1400:], labels[1400:], (0.0, 1.0), 256


def _npz(path: Path) -> _Parts:
    found = _read_npz(path)
    names = ("x_train", "y_train") if "x_train" in found else ("inputs", "labels")
    if names[0] not in found or names[1] not in found:
        raise FileError(
            f"expected arrays x_train and y_train (or inputs and labels) in {path}, got {', '.join(found) or 'none'}"
        )
    raw, labels = _pair(found, *names, path)
    if "x_test" in found and "y_test" in found:
        test, test_labels = _pair(found, "x_test", "y_test", path)
        if test.shape[1:] != raw.shape[1:] or test.dtype != raw.dtype:
            raise FileError(
                f"expected x_test like x_train {raw.shape[1:]}, got {test.shape[1:]} {test.dtype} in {path}"
            )
    else:
        order = np.random.default_rng(0).permutation(len(raw))
        held, kept = order[: len(raw) // 5], order[len(raw) // 5 :]
        raw, labels, test, test_labels = raw[kept], labels[kept], raw[held], labels[held]
    levels = 256 if raw.dtype == np.uint8 else None
    images, test_images = _as_inputs(raw), _as_inputs(test)
    bounds = (0.0, 1.0) if levels else (float(images.min()), float(images.max()))
    return images, labels, test_images, test_labels, bounds, levels


def _pair(found: dict[str, Array], inputs: str, labels: str, path: Path) -> tuple[Array, Array]:
    """Inputs (n, *shape) of finite numbers, and labels (n,) that count from 0."""
    x, y = found[inputs], found[labels]
    if x.ndim < 2 or not x.size or x.dtype.kind not in "fiub" or not np.isfinite(x).all():
        raise FileError(f"expected finite inputs (n, …) as {inputs} in {path}, got {x.dtype} of shape {x.shape}")
    if y.ndim != 1 or y.dtype.kind not in "fiu" or not ((y >= 0) & (y < 2**31) & (y == np.round(y))).all():
        raise FileError(f"expected labels 0, 1, … (n,) as {labels} in {path}, got {y.dtype} of shape {y.shape}")
    if len(x) != len(y):
        raise FileError(f"expected one label per input in {path}, got {len(x)} inputs and {len(y)} labels")
    return x, y.astype(np.int64)


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        if not path.is_file():
            raise FileError(f"expected data (sklearn:digits or an .npz file), found nothing at {path}")
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
