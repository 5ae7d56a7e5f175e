"""Archives of numpy: one member per array, never a pickle."""

import io
from collections.abc import Sequence

import numpy as np

from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges
from minutia.models.checkpoint_entries import Contents, Entry, check_count, entry
from minutia.models.checkpoint_zip import Member
from minutia.models.number_formats import of_dtype

MAX_HEADER = 2**14


def read_npz(source: ByteRanges, members: Sequence[Member]) -> Contents:
    """Entries of an ``.npz`` file, compressed or not, in the order of the archive.

    Arrays of texts and other things that are no numbers are listed and cannot be read; arrays of objects, which
    numpy stores as a pickle, are a FileError.

    Source: the format of numpy, numpy.org/doc, ``numpy.lib.format``, versions 1 and 2.
    """
    check_count(len(members), source)
    arrays = [member for member in members if member.name.endswith(".npy")]
    return Contents({member.name.removesuffix(".npy"): _entry(member, source) for member in arrays})


def _entry(member: Member, archive: ByteRanges) -> Entry:
    source, start = member.opened(archive)
    head = io.BytesIO(source.read(start, min(member.size, MAX_HEADER)).tobytes())
    formats = np.lib.format
    try:
        version = formats.read_magic(head)
        read = {(1, 0): formats.read_array_header_1_0, (2, 0): formats.read_array_header_2_0}[version]
        shape, fortran, dtype = read(head, max_header_size=MAX_HEADER)
    except Exception:  # whatever a hostile header makes of numpy's parser
        raise FileError(
            f"expected an array in {member.name[:80]!r} of {archive.name}, got a header that numpy cannot read: "
            "the archive is damaged"
        ) from None
    if dtype.hasobject:
        raise FileError(
            f"expected plain numbers in {member.name[:80]!r} of {archive.name}, got pickled objects: "
            "save the arrays as numbers"
        )
    name = member.name.removesuffix(".npy")
    stated = member.size - head.tell()
    fortran = bool(fortran) and len(shape) > 1
    return entry(name, shape, of_dtype(dtype), source, start + head.tell(), stated, fortran=fortran)
