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

    Ten classes: five of brightness (equally many training pieces in each), times whether brightness changes more
    along rows or along columns. Another domain of the digits' shape, or of any ``size``; ``rgb=true`` for colours.
    """
    size, colours = whole(options, "size", 8, 4, 128), switch(options, "rgb")
    photos = np.stack(_photographs())  # (2, height, width, 3)
    rng = np.random.default_rng(397)
    pieces = [
        _pieces(part, size, count, rng) for part, count in ((photos[:, :, :EDGE], 1400), (photos[:, :, EDGE:], 397))
    ]
    grays = [_gray(p) for p in pieces]
    labels, test_labels = _shades(grays)
    shown = pieces if colours else [g[:, None] for g in grays]
    inputs, test_inputs = ((p / np.float32(255)).astype(np.float32) for p in shown)
    return Parts(inputs, labels, test_inputs, test_labels, (0.0, 1.0), 256, "image")


def _photographs() -> list[Array]:
    """Two photographs (427, 640, 3) as uint8."""
    loader = _datasets("the photographs")
    try:
        return list(loader.load_sample_images().images)
    except ImportError:
        raise MissingExtraError("Pillow", "images", "the photographs") from None


def _pieces(photos: Array, size: int, count: int, rng: np.random.Generator) -> Array:
    """Different squares (count, 3, size, size) from random places of all photos."""
    places = np.lib.stride_tricks.sliding_window_view(photos, (size, size), axis=(1, 2))
    chosen = rng.choice(int(np.prod(places.shape[:3])), count, replace=False)
    return places[np.unravel_index(chosen, places.shape[:3])]


def _gray(pieces: Array) -> Array:
    """Luma of ITU-R BT.601 in whole numbers: (n, 3, height, width) to (n, height, width), uint8."""
    red, green, blue = (pieces[:, i].astype(np.int64) for i in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.uint8)


def _shades(grays: list[Array]) -> list[Array]:
    """Labels 0 to 9 by brightness and direction; the limits are those of the first part."""
    whole_numbers = [g.astype(np.int64) for g in grays]
    brightness = [g.sum(axis=(1, 2)) for g in whole_numbers]
    along, across = ([np.abs(np.diff(g, axis=a)).sum(axis=(1, 2)) for g in whole_numbers] for a in (2, 1))
    slant = [(a - b) / (a + b + 1) for a, b in zip(along, across, strict=True)]
    limits, middle = np.quantile(brightness[0], (0.2, 0.4, 0.6, 0.8)), np.median(slant[0])
    return [
        (2 * np.searchsorted(limits, b) + (s > middle)).astype(np.int64) for b, s in zip(brightness, slant, strict=True)
    ]


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

    Each topic is a Markov chain of its own: it prefers about half of the tokens (four to one), and within these every
    token has its own successors. Small networks that only count tokens are right on about nine texts of ten. All
    weights and draws are whole numbers, so the texts are the same on every machine.
    """
    rng = np.random.default_rng(64)
    preferred = rng.integers(1, 3, (TOPICS, 1, TOKENS)) ** 2
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
