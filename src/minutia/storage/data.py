"""Labelled data by specification: files, folders, the user's own code, and data sets that are built in."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from minutia.core.digest import Array, array_digest, canonical_json, sha256
from minutia.core.errors import UsageError
from minutia.storage.data_arrays import CONTENTS, Parts, npz_parts
from minutia.storage.data_builtin import sklearn_parts, text_parts
from minutia.storage.data_code import code_parts
from minutia.storage.data_folder import folder_parts, image_files
from minutia.storage.data_options import Options, one_of, share, span, split_options

CHOICES = ("rows", "part", "classes")
"""Options of every data set; they choose from what was read."""
OWN_OPTIONS = {
    "npz": ("content",),
    "torch": ("content",),
    "folder": ("size", "gray"),
    "sklearn:photos": ("size", "rgb"),
}
"""Further options, which change how the data is read."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs (n, *shape) float32 with labels (n,), and a held-out part that no model is trained on.

    ``bounds`` is the valid input box; ``levels`` the number of grey levels that inputs are stored with. ``content``
    says what inputs are: image, tabular (rows of numbers) or text (numbers of tokens).
    """

    spec: str
    inputs: Array
    labels: Array
    test_inputs: Array
    test_labels: Array
    bounds: tuple[float, float]
    levels: int | None
    content: str = "image"

    @cached_property
    def digest(self) -> str:
        """Digest of all four arrays and, where it is no image of 256 grey levels, of what the numbers mean."""
        parts = (self.inputs, self.labels, self.test_inputs, self.test_labels)
        meaning = [self.content, list(self.bounds), self.levels]
        usual = [] if meaning == ["image", [0.0, 1.0], 256] else [meaning]
        return sha256(canonical_json([*(array_digest(a) for a in parts), *usual]).encode())

    @property
    def classes(self) -> int:
        """Number of classes: labels of both parts are below it."""
        return int(max(self.labels.max(initial=-1), self.test_labels.max(initial=-1))) + 1


def load_dataset(spec: str) -> Dataset:
    """Load a data set; a spec is a place, with options after ``?`` that are joined by ``&``.

    | place | what it is |
    |---|---|
    | ``file.npz`` | ``x_train, y_train`` and, if it has them, ``x_test, y_test`` (else a fifth is held out) |
    | a folder, or ``folder:PATH`` | images, one subfolder per class, perhaps beneath ``train/`` and ``test/`` |
    | ``torch:module:factory``, ``torch:file.py:factory`` | your own code: a map-style data set, or (train, test) |
    | ``sklearn:digits``, ``sklearn:photos`` | images that scikit-learn ships |
    | ``sklearn:breast_cancer``, ``sklearn:wine`` | tables |
    | ``text:topics`` | made-up sequences of tokens |

    ``rows=0:700`` keeps those rows of the training part, ``part=1/2`` every second of them, ``classes=0:5`` only those
    classes of both parts, then numbered from 0; rows are counted before classes are chosen. ``size=32`` and
    ``gray=true`` are for folders, ``size`` and ``rgb=true`` for photos, ``content=text`` for whole numbers of tokens in
    a file or from code.
    uint8 images become float32 in [0, 1] with channels first.

    Code is only ever run where the spec names it: never take a ``torch:`` spec from a stranger.
    """
    if spec in _preloaded:
        return _preloaded[spec]
    kind, rest = _source(spec.partition("?")[0])
    return _loaded(spec, kind, rest, _stamp(kind, rest))


def halves(spec: str) -> tuple[str, str]:
    """The two halves of the training part of a data set, as specs.

    >>> halves("sklearn:digits?rows=0:900")
    ('sklearn:digits?rows=0:900&part=1/2', 'sklearn:digits?rows=0:900&part=2/2')
    >>> halves("points.npz?part=2/3")
    ('points.npz?part=2/6', 'points.npz?part=5/6')
    """
    place, _, query = spec.partition("?")
    options = query.split("&") if query else []
    part = share(dict(o.split("=", 1) for o in options if o.startswith("part=")), "part")
    kept, (first, of) = [o for o in options if not o.startswith("part=")], (part.start + 1, part.step)
    one, two = (f"{place}?{'&'.join([*kept, f'part={k}/{2 * of}'])}" for k in (first, first + of))
    return one, two


def preload(spec: str, dataset: Dataset) -> None:
    """Keep a loaded data set under its spec until this process ends: another machine need not have the file.

    >>> preload("elsewhere.npz", load_dataset("text:topics"))
    >>> load_dataset("elsewhere.npz").classes
    6
    """
    _preloaded[spec] = dataset


_preloaded: dict[str, Dataset] = {}


@lru_cache(maxsize=8)
def _loaded(spec: str, kind: str, rest: str, stamp: int) -> Dataset:
    """Kept between calls, because every task of a zoo asks for it; a file that changed is read again."""
    own = OWN_OPTIONS.get(f"{kind}:{rest}", OWN_OPTIONS.get(kind, ()))
    options = split_options(spec, (*CHOICES, *own))
    rows, kept = span(options, "rows"), span(options, "classes")
    read = _read(kind, rest, tuple((name, options[name]) for name in own if name in options), stamp)
    part = share(options, "part")
    inputs, labels = read.inputs[rows][part], read.labels[rows][part]
    if not len(inputs):
        raise UsageError(f"expected rows within 0:{len(read.inputs)}, got none with {spec!r}")
    whole = Dataset(spec, inputs, labels, read.test_inputs, read.test_labels, read.bounds, read.levels, read.content)
    return whole if kept == slice(None) else _of_classes(whole, kept)


def _of_classes(data: Dataset, kept: slice) -> Dataset:
    """Only some classes, numbered from 0."""
    chosen = range(data.classes)[kept]
    if len(chosen) < 2:
        raise UsageError(f"expected two or more classes within 0:{data.classes}, got {len(chosen)} with {data.spec!r}")
    train, test = (np.isin(labels, chosen) for labels in (data.labels, data.test_labels))
    if not train.any():
        raise UsageError(f"expected rows of classes {chosen[0]} to {chosen[-1]}, got none with {data.spec!r}")
    return Dataset(
        data.spec,
        data.inputs[train],
        data.labels[train] - chosen[0],
        data.test_inputs[test],
        data.test_labels[test] - chosen[0],
        data.bounds,
        data.levels,
        data.content,
    )


@lru_cache(maxsize=4)
def _read(kind: str, rest: str, options: tuple[tuple[str, str], ...], stamp: int) -> Parts:
    """Read a source once, whatever rows are wanted of it: their arrays are then views of the same memory."""
    return READERS[kind](rest, dict(options))


READERS: Mapping[str, Callable[[str, Options], Parts]] = {
    "npz": lambda rest, options: npz_parts(Path(rest), one_of(options, "content", CONTENTS)),
    "torch": lambda rest, options: code_parts(rest, one_of(options, "content", CONTENTS)),
    "folder": lambda rest, options: folder_parts(Path(rest), options),
    "sklearn": sklearn_parts,
    "text": text_parts,
}


def _source(place: str) -> tuple[str, str]:
    """The kind of a place and what its reader needs; a bare path is a folder or a file."""
    kind, colon, rest = place.partition(":")
    if colon and kind in READERS and kind != "npz":
        return kind, rest
    try:
        return ("folder" if place and Path(place).is_dir() else "npz"), place
    except (OSError, ValueError):  # too long for a name, or with a null byte in it: said when it is read
        return "npz", place


def _stamp(kind: str, rest: str) -> int:
    """Changes when a file does, or its name; 0 where there is none, which is said when it is read."""
    try:
        found = [(str(path), path.stat()) for path in _files(kind, rest)]
    except (OSError, ValueError):
        return 0
    return hash(tuple((name, state.st_mtime_ns, state.st_size) for name, state in found))


def _files(kind: str, rest: str) -> Iterable[Path]:
    """What a source reads."""
    if kind == "folder":
        return image_files(Path(rest))
    if kind == "torch":
        return [Path(rest.rpartition(":")[0])]
    return [Path(rest)] if kind == "npz" else []
