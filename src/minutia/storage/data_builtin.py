"""Built-in data sets: images and tables that scikit-learn ships, and a generated text task."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import MissingExtraError, UsageError
from minutia.core.keys import did_you_mean
from minutia.storage.data_arrays import Parts
from minutia.storage.data_options import Options, switch, whole

Maker = Callable[[Options], Parts]
TOKENS, LENGTH, TOPICS = 64, 24, 6
EDGE = 500
"""Column of the photographs where the training part ends and the held-out part begins."""


def sklearn_parts(name: str, options: Options) -> Parts:
    """Read one of scikit-learn's own data sets, in a fixed order."""
    return _known(name, "sklearn", SKLEARN)(options)


def text_parts(name: str, options: Options) -> Parts:
    """Generate a text task."""
    return _known(name, "text", TEXT)(options)


def _known(name: str, kind: str, makers: Mapping[str, Maker]) -> Maker:
    if name not in makers:
        listed = ", ".join(f"{kind}:{known}" for known in makers)
        raise UsageError(f"expected one of {listed}, got '{kind}:{name}'{did_you_mean(name, makers)}")
    return makers[name]


def _digits(options: Options) -> Parts:
    """1,797 real 8x8 images in a fixed order: 1,400 to train on, 397 held out."""
    found = _datasets("the digits data set", "demo").load_digits()
    order = np.random.default_rng(1797).permutation(len(found.target))
    images = (found.images / 16).astype(np.float32)[order, None]
    labels = found.target[order].astype(np.int64)
    return Parts(images[:1400], labels[:1400], images[1400:], labels[1400:], (0.0, 1.0), 256, "image")


def _photos(options: Options) -> Parts:
    """Pieces of two photographs, 1,400 to train on and 397 held out, which come from columns of their own.

    Ten classes: five of brightness, with equally many training pieces in each, times whether a piece is brighter above
    or below. Another domain of the digits' shape, or of any ``size``; ``rgb=true`` for colours.
    """
    size, channels = whole(options, "size", 8, 4, 64), slice(3) if switch(options, "rgb") else slice(3, 4)
    photos, rng = _photographs(), np.random.default_rng(397)
    train = _pieces(photos[:, :, :EDGE], size, 1400, rng)
    test = _pieces(photos[:, :, EDGE:], size, 397, rng)
    limits = np.quantile(_light(train), (0.2, 0.4, 0.6, 0.8))
    labels, test_labels = (2 * np.searchsorted(limits, _light(p)) + (_ramps(p)[0] > 0) for p in (train, test))
    inputs, test_inputs = (p[:, channels] / np.float32(255) for p in (train, test))
    return Parts(inputs, labels, test_inputs, test_labels, (0.0, 1.0), 256, "image")


def _photographs() -> Array:
    """Two photographs (2, 427, 640, 4) as uint8: red, green, blue, and the luma of ITU-R BT.601 in whole numbers."""
    loader = _datasets("the photographs")
    try:
        colours = np.stack(loader.load_sample_images().images)
    except ImportError:
        raise MissingExtraError("Pillow", "images", "the photographs") from None
    luma = (colours.astype(np.int64) @ [299, 587, 114] + 500) // 1000
    return np.concatenate([colours, luma[..., None].astype(np.uint8)], axis=3)


def _pieces(photos: Array, size: int, count: int, rng: np.random.Generator) -> Array:
    """Different squares (count, 4, size, size): of four times as many from random places, those with most contrast."""
    places = np.lib.stride_tricks.sliding_window_view(photos, (size, size), axis=(1, 2))
    drawn = rng.choice(int(np.prod(places.shape[:3])), 4 * count, replace=False)
    pieces = places[np.unravel_index(drawn, places.shape[:3])]
    contrast = sum(np.abs(ramp) for ramp in _ramps(pieces))
    return pieces[np.sort(np.argsort(-contrast, kind="stable")[:count])]


def _light(pieces: Array) -> Array:
    """Brightness (n,) of pieces (n, 4, size, size), added up."""
    return pieces[:, 3].sum(axis=(1, 2), dtype=np.int64)


def _ramps(pieces: Array) -> tuple[Array, Array]:
    """How much brighter the lower half is than the upper one, and the right half than the left one."""
    rows, columns = (pieces[:, 3].sum(axis=a, dtype=np.int64) for a in (2, 1))
    half = pieces.shape[2] // 2
    down, right = (lines[:, -half:].sum(axis=1) - lines[:, :half].sum(axis=1) for lines in (rows, columns))
    return down, right


def _breast_cancer(options: Options) -> Parts:
    """569 tumours by 30 measurements, malignant (0) or benign (1)."""
    return _table(_datasets("the breast cancer data set").load_breast_cancer())


def _wine(options: Options) -> Parts:
    """178 wines by 13 measurements, from three growers."""
    return _table(_datasets("the wine data set").load_wine())


def _table(found: Any) -> Parts:
    """Columns in units of the training part's deviation, clipped to [-4, 4]; a fifth is held out."""
    order = np.random.default_rng(len(found.target)).permutation(len(found.target))
    rows, labels, held = found.data[order], found.target[order].astype(np.int64), len(order) // 5
    train = rows[held:]
    scaled = np.clip((rows - train.mean(axis=0)) / train.std(axis=0), -4, 4).astype(np.float32)
    return Parts(scaled[held:], labels[held:], scaled[:held], labels[:held], (-4.0, 4.0), None, "tabular")


def _topics(options: Options) -> Parts:
    """3,000 made-up texts of 24 tokens out of 64, on six topics; the label is the topic; 600 are held out.

    Each topic is a Markov chain of its own: it prefers about half of the tokens (nine to two), and every token has
    its own successors. Small networks that only count tokens are right on 85 to 93 texts of a hundred. All weights and
    draws are whole numbers, so the texts are the same on every machine.
    """
    rng = np.random.default_rng(7)
    preferred = np.where(rng.integers(2, size=(TOPICS, 1, TOKENS)) > 0, 9, 2)
    reach = (rng.integers(1, 6, (TOPICS, TOKENS, TOKENS)) ** 2 * preferred).cumsum(axis=2)
    labels = rng.permutation(np.arange(3000) % TOPICS)
    texts = np.empty((3000, LENGTH), np.int64)
    texts[:, 0] = rng.integers(TOKENS, size=3000)
    for place in range(1, LENGTH):
        following = reach[labels, texts[:, place - 1]]
        texts[:, place] = (following <= rng.integers(following[:, -1])[:, None]).sum(axis=1)
    inputs = texts.astype(np.float32)
    bounds = (0.0, float(TOKENS - 1))
    return Parts(inputs[:2400], labels[:2400], inputs[2400:], labels[2400:], bounds, TOKENS, "text")


def _datasets(what: str, extra: str = "sklearn") -> Any:
    try:
        from sklearn import datasets
    except ImportError:
        raise MissingExtraError("scikit-learn", extra, what) from None
    return datasets


SKLEARN: Mapping[str, Maker] = {
    "breast_cancer": _breast_cancer,
    "digits": _digits,
    "photos": _photos,
    "wine": _wine,
}
TEXT: Mapping[str, Maker] = {"topics": _topics}
