"""A folder of images as a data set: one subfolder per class, perhaps beneath ``train/`` and ``test/``."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import FileError, MissingExtraError
from minutia.storage.data_arrays import Parts, check_size, checked_pair, parts_of
from minutia.storage.data_options import Options, switch, whole

if TYPE_CHECKING:
    from PIL import Image

MAX_IMAGES = 500_000
MAX_PIXELS = 2**26
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "WEBP")
"""Plain formats only: some of Pillow's decoders start other programs."""
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".webp"}


def folder_parts(folder: Path, options: Options) -> Parts:
    """Read every image; the class of an image is its subfolder's place among the sorted names.

    ``size`` cuts the largest square out of the middle and resizes it to size x size; without it all images must be of
    one size. ``gray=true`` gives one channel, else there are three. The training part comes in one fixed shuffled
    order. Without ``test/`` a fifth is held out.
    """
    size = whole(options, "size", 0, 1, 4096) if "size" in options else 0
    if not folder.is_dir():
        raise FileError(f"expected a folder of images, found none at {folder}: check the path")
    top = _train_folder(folder)
    names = [c.name for c in _classes(top)]
    if len(names) < 2:
        raise FileError(
            f"expected a folder with one subfolder of images per class, got {len(names)} subfolders in {top}: "
            "give an .npz file, or sort the images into folders"
        )
    empty = [c for c in _classes(top) if not _images(c)]
    if empty:
        raise FileError(f"expected images ({' '.join(sorted(SUFFIXES))}) in every class, got none in {empty[0]}")
    test = folder / "test"
    reading = _Reading(size, switch(options, "gray"))
    train_pair = reading.part(top, names)
    test_pair = reading.part(test, names) if top != folder and test.is_dir() else None
    return parts_of(_shuffled(*train_pair), test_pair, "image", str(folder))


def image_files(folder: Path) -> Iterator[Path]:
    """Every image that the data set would be made of, in order."""
    top = _train_folder(folder)
    for part in (top, folder / "test") if top != folder else (top,):
        for name in _classes(part):
            yield from _images(name)


class _Reading:
    """How images are read: all of one height and width, which the first one sets if no size is wanted."""

    def __init__(self, size: int, gray: bool) -> None:
        self.size, self.gray = size, gray
        self.shape: tuple[int, ...] = ()

    def part(self, top: Path, names: list[str]) -> tuple[Array, Array]:
        """uint8 images (n, height, width[, 3]) of these classes, and labels (n,)."""
        strange = [c.name for c in _classes(top) if c.name not in names]
        if strange:
            raise FileError(f"expected the classes {', '.join(names)[:200]} in {top}, got {strange[0]!r}: move it away")
        found = list(islice(self._labelled(top, names), MAX_IMAGES + 1))
        if not found or len(found) > MAX_IMAGES:
            raise FileError(
                f"expected 1 to {MAX_IMAGES} images in {top}, got {len(found) or 'none'}: give a part of it"
            )
        first = self._read(found[0][0])
        self.shape = self.shape or first.shape
        check_size(len(found), (*first.shape[:2], 1 if self.gray else 3), str(top))
        images = np.empty((len(found), *self.shape), np.uint8)
        for row, (path, _) in enumerate(found):
            images[row] = self._fitting(path)
        return checked_pair(images, np.array([label for _, label in found]), ("images", "labels"), str(top))

    def _labelled(self, top: Path, names: list[str]) -> Iterator[tuple[Path, int]]:
        for label, name in enumerate(names):
            yield from ((path, label) for path in _images(top / name))

    def _fitting(self, path: Path) -> Array:
        image = self._read(path)
        if image.shape != self.shape:
            (height, width), (wanted_height, wanted_width) = image.shape[:2], self.shape[:2]
            raise FileError(
                f"expected images of one size, {wanted_width}x{wanted_height}, got {width}x{height} from {path}: "
                "add ?size=32 to resize all of them"
            )
        return image

    def _read(self, path: Path) -> Array:
        """One image as uint8; whatever is wrong with the file is one error that names it."""
        pillow = _pillow()
        try:
            with pillow.open(path, formats=FORMATS) as image:
                _check_kind(image, path)
                plain = image.convert("L" if self.gray else "RGB")
            if self.size:
                plain = plain.crop(_middle(plain)).resize((self.size, self.size), pillow.Resampling.BILINEAR)
            return np.asarray(plain)
        except FileError:
            raise
        except Exception as error:
            raise FileError(
                f"expected an image ({', '.join(FORMATS)}), got {type(error).__name__} from {path}: "
                "the file is truncated, damaged or of another format"
            ) from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("Pillow", "images", "a folder of images") from None
    return Image


def _middle(image: "Image.Image") -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest square in the middle."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _check_kind(image: "Image.Image", path: Path) -> None:
    """Size and depth as the header states them, before anything is decoded."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise FileError(f"expected at most {MAX_PIXELS >> 20} megapixels, got {width}x{height} from {path}: shrink it")
    if image.mode.startswith(("I", "F")):
        raise FileError(f"expected 8 bits per channel, got mode {image.mode} from {path}: convert the image")


def _train_folder(folder: Path) -> Path:
    """The folder whose subfolders are classes: ``train/`` if it has any."""
    return folder / "train" if _classes(folder / "train") else folder


def _classes(folder: Path) -> list[Path]:
    """Subfolders by name; hidden ones are no classes."""
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)


def _images(folder: Path) -> list[Path]:
    """Files by name that look like images; hidden ones and everything else is left alone."""
    if not folder.is_dir():
        return []
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted((p for p in found if p.is_file()), key=lambda p: p.name)


def _shuffled(images: Array, labels: Array) -> tuple[Array, Array]:
    """In a fixed order that mixes the classes, so that any range of rows holds all of them."""
    order = np.random.default_rng(len(labels)).permutation(len(labels))
    return images[order], labels[order]
