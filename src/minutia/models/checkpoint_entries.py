"""Where the tensors of a checkpoint lie, checked before anything of their size is allocated."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges
from minutia.models.number_formats import NumberFormat

MAX_TENSORS = 2**18
MAX_DIMENSIONS = 16
MAX_NUMBERS = 2**48
MAX_NAME = 1024


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of a tensor; ``dtype`` is the stored format, ``nbytes`` its size in the file, unpacked.

    >>> TensorInfo((2, 3), "bfloat16", 12).rows
    2
    """

    shape: tuple[int, ...]
    dtype: str
    nbytes: int

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Length of the first axis; a lone number is one row."""
        return self.shape[0] if self.shape else 1


@dataclass(frozen=True)
class Entry:
    """A tensor whose numbers lie at ``start`` of a file, the last axis fastest (the first one if ``fortran``)."""

    info: TensorInfo
    format: NumberFormat
    source: ByteRanges
    start: int
    fortran: bool = False

    def numbers(self, start: int, stop: int) -> Array:
        """Numbers ``start`` to ``stop`` in the order they are stored, as float32 (stop - start,)."""
        if self.format.decode is None:
            raise FileError(
                f"expected numbers that can be read in {self.source.name}, got {self.info.dtype}: "
                "store them in another format"
            )
        first, last = start // self.format.block, -(-stop // self.format.block)
        raw = self.source.read(self.start + first * self.format.block_bytes, (last - first) * self.format.block_bytes)
        skipped = first * self.format.block
        return self.format.decode(raw)[start - skipped : stop - skipped]


@dataclass(frozen=True)
class Contents:
    """What a reader of a format found: tensors in the order of the file, and its metadata as text.

    ``tokenizer`` opens the tokenizer's file where one may lie beside the weights, and gives None where none does.
    """

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    tokenizer: Callable[[], ByteRanges | None] | None = None


def entry(
    name: str,
    shape: Sequence[object],
    number_format: NumberFormat,
    source: ByteRanges,
    start: int,
    nbytes: int | None = None,
    *,
    fortran: bool = False,
) -> Entry:
    """Check one tensor of a header: its name, its shape, its size in bytes, and that it lies inside the file.

    ``nbytes`` is the size that the header states, None where it states none. FileError says what is wrong.
    """
    check_name(name, source)
    sizes = tuple(d for d in shape if isinstance(d, int) and not isinstance(d, bool) and 0 <= d <= MAX_NUMBERS)
    fits = math.prod(d or 1 for d in sizes) <= MAX_NUMBERS
    if len(sizes) != len(shape) or len(sizes) > MAX_DIMENSIONS or not fits:
        raise FileError(
            f"expected a shape of up to {MAX_DIMENSIONS} axes and {MAX_NUMBERS} numbers for {name!r} in {source.name}, "
            f"got {str(list(shape)[: MAX_DIMENSIONS + 1])[:120]}: the header is wrong, do not trust the file"
        )
    count = math.prod(sizes)
    if number_format.block > 2 and sizes and sizes[-1] % number_format.block:
        raise FileError(
            f"expected rows of whole blocks of {number_format.block} for {name!r} in {source.name}, got {sizes}: "
            "the header is wrong, do not trust the file"
        )
    needed = number_format.stored(count)
    if nbytes is not None and nbytes != needed:
        raise FileError(
            f"expected {needed} bytes of {number_format.name} {sizes} for {name!r} in {source.name}, got {nbytes}: "
            "the header is wrong, do not trust the file"
        )
    if start < 0 or start + needed > source.size:
        raise FileError(
            f"expected {name!r} inside the {source.size} bytes of {source.name}, got bytes {start} to "
            f"{start + needed}: the file is truncated, or its header is wrong"
        )
    return Entry(TensorInfo(sizes, number_format.name, needed), number_format, source, start, fortran)


def check_name(name: str, source: ByteRanges) -> None:
    """Refuse names that are too long, or that a terminal would obey."""
    if len(name) > MAX_NAME or not name.isprintable():
        raise FileError(
            f"expected a printable name of at most {MAX_NAME} characters for a tensor in {source.name}, "
            f"got {name[:40]!r} ({len(name)} characters): do not trust the file"
        )


def check_count(count: int, source: ByteRanges) -> None:
    """Refuse more tensors than any model has."""
    if count > MAX_TENSORS:
        raise FileError(f"expected at most {MAX_TENSORS} tensors in {source.name}, got {count}: do not trust the file")


def check_apart(entries: Mapping[str, Entry]) -> None:
    """Refuse tensors that share bytes of one file."""
    by_source: dict[int, list[tuple[int, int, str]]] = {}
    for name, found in entries.items():
        if found.info.nbytes:
            place = (found.start, found.start + found.info.nbytes, name)
            by_source.setdefault(id(found.source), []).append(place)
    for places in by_source.values():
        places.sort()
        for before, after in itertools.pairwise(places):
            if after[0] < before[1]:
                raise FileError(
                    f"expected tensors apart in {entries[after[2]].source.name}, got {after[2]!r} inside "
                    f"{before[2]!r}: the header is wrong, do not trust the file"
                )


def runs(rows: Array, row_bytes: int, gap: int) -> Iterator[tuple[int, int]]:
    """Join sorted row numbers into half-open ranges; gaps of at most ``gap`` bytes are fetched along.

    >>> list(runs(np.array([0, 1, 5, 90]), row_bytes=10, gap=30))
    [(0, 6), (90, 91)]
    """
    cuts = np.flatnonzero((np.diff(rows) - 1) * row_bytes > gap) + 1
    for part in np.split(rows, cuts) if rows.size else ():
        yield int(part[0]), int(part[-1]) + 1
