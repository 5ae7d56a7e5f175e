"""ONNX initialisers, found by walking over the fields of the file without taking the numbers in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges, Cursor, MemoryBytes
from minutia.models.checkpoint_entries import Contents, Entry, check_apart, check_count, entry
from minutia.models.number_formats import FORMATS

TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
}
"""TensorProto.DataType -> name in number_formats; texts are left out."""
MODEL_PRODUCER, MODEL_GRAPH, MODEL_METADATA = 2, 7, 14
GRAPH_INITIALIZER = 5
DIMS, DATA_TYPE, FLOATS, INTS, NAME, RAW, DOUBLES, EXTERNAL, LOCATION = 1, 2, 4, 5, 8, 9, 10, 13, 14
LONGS, ULONGS = 7, 11
MAX_TEXT = 2**16
MAX_FIELDS = 2**22
"""Fields that are looked at in all; nodes are stepped over whole."""
MAX_VARINTS = 2**26
"""Bytes of numbers that are not stored as they are, but one by one as varints."""
Beside = Callable[[str], ByteRanges]


@dataclass
class _Said:
    """What a TensorProto says: where its numbers lie, if they are in the file."""

    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    name: str = ""
    place: tuple[int, int] | None = None
    varints: bool = False
    external: dict[str, str] = field(default_factory=dict)


def read_onnx(source: ByteRanges, beside: Beside) -> Contents:
    """Entries of the graph's initialisers, those in external files beside it included; nodes are not looked at.

    Source: onnx.proto3 of github.com/onnx/onnx, and the wire format of protobuf.dev.
    """
    walk = _Walk(source)
    metadata: dict[str, str] = {}
    tensors: list[_Said] = []
    for number, start, length in walk.fields(0, source.size, 2**12):
        if number == MODEL_GRAPH:
            for inner, at, size in walk.fields(start, length, 2**12):
                if inner == GRAPH_INITIALIZER:
                    tensors.append(_said(walk, at, size))
                    check_count(len(tensors), source)
        elif number == MODEL_PRODUCER:
            metadata["producer_name"] = walk.text(start, length)
        elif number == MODEL_METADATA:
            key, value = walk.pair(start, length)
            metadata[key] = value
    external = _Outside(source, beside)
    entries: dict[str, Entry] = {}
    for said in tensors:
        if said.name in entries:
            raise FileError(f"expected {said.name[:80]!r} once in {source.name}, got it twice: do not trust the file")
        if said.data_type in TYPES:
            entries[said.name] = _entry(said, source, external)
    check_apart(entries)
    if not entries:
        raise FileError(f"expected an ONNX file with weights in {source.name}, got none: it is damaged or foreign")
    return Contents(entries, metadata)


class _Walk:
    """Fields of messages in the wire format: (number, place, length), or the value itself in place of a place."""

    def __init__(self, source: ByteRanges) -> None:
        self._source, self._count = source, 0

    def fields(self, start: int, length: int, ahead: int = 2**9) -> Iterator[tuple[int, int, int]]:
        """Every field of the message at ``start``; a varint gives (number, value, -1)."""
        at = Cursor(self._source, start, start + length, ahead)
        while at.position < at.end:
            self._count += 1
            tag = varint(at)
            number, kind = tag >> 3, tag & 7
            if not number or kind not in (0, 1, 2, 5) or self._count > MAX_FIELDS:
                raise FileError(
                    f"expected ONNX in {self._source.name}, got no known field at {at.position}: "
                    "the file is damaged, or of another format"
                )
            if kind == 0:
                yield number, varint(at), -1
                continue
            size = varint(at) if kind == 2 else {1: 8, 5: 4}[kind]
            place = at.position
            at.skip(size)
            yield number, place, size

    def text(self, start: int, length: int) -> str:
        """A short text in UTF-8."""
        data = self._source.read(start, min(max(length, 0), MAX_TEXT)).tobytes()
        return data.decode("utf-8", "replace")

    def pair(self, start: int, length: int) -> tuple[str, str]:
        """A StringStringEntryProto."""
        found = {number: self.text(at, size) for number, at, size in self.fields(start, length)}
        return found.get(1, ""), found.get(2, "")

    def varints(self, start: int, length: int) -> list[int]:
        """Packed whole numbers."""
        at, found = Cursor(self._source, start, start + length), []
        while at.position < at.end:
            found.append(varint(at))
        return found


def varint(at: Cursor) -> int:
    """A whole number of up to 64 bits, seven at a time, the lowest first.

    >>> varint(Cursor(MemoryBytes(bytes([0xAC, 0x02]))))
    300
    """
    value = 0
    for shift in range(0, 70, 7):
        (byte,) = at.take(1)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise FileError(f"expected a number at {at.position} of {at.name}, got more than 64 bits: the file is damaged")


def _said(walk: _Walk, start: int, length: int) -> _Said:
    said = _Said()
    for number, at, size in walk.fields(start, length):
        if number == DIMS:
            said.dims += [at] if size < 0 else walk.varints(at, min(size, 256))
        elif number == DATA_TYPE:
            said.data_type = at
        elif number == NAME:
            said.name = walk.text(at, size)
        elif number in (RAW, FLOATS, DOUBLES, INTS, LONGS, ULONGS):
            said.place = (at, size) if said.place is None else (at, -2)
            said.varints = number in (INTS, LONGS, ULONGS)
        elif number == EXTERNAL:
            key, value = walk.pair(at, size)
            said.external[key] = value
    return said


class _Outside:
    """Files of external data, each opened once."""

    def __init__(self, source: ByteRanges, beside: Beside) -> None:
        self._source, self._beside = source, beside
        self._opened: dict[str, ByteRanges] = {}

    def place(self, said: _Said) -> tuple[ByteRanges, int, int | None]:
        """File, offset and length (None: to be taken from the shape) that a tensor names."""
        location = said.external.get("location", "")
        numbers = [said.external.get(key, "0") for key in ("offset", "length")]
        if not all(text.isdecimal() and len(text) < 19 for text in numbers):
            raise FileError(
                f"expected offset and length of {said.name[:80]!r} in {self._source.name}, got {numbers}: "
                "do not trust the file"
            )
        if location not in self._opened:
            self._opened[location] = self._beside(location)
        offset, length = map(int, numbers)
        return self._opened[location], offset, length if "length" in said.external else None


def _entry(said: _Said, source: ByteRanges, outside: _Outside) -> Entry:
    kind = FORMATS[TYPES[said.data_type]]
    if said.external:
        held, offset, length = outside.place(said)
        return entry(said.name, said.dims, kind, held, offset, length)
    start, size = said.place or (0, 0)
    if size < 0:
        raise FileError(
            f"expected the numbers of {said.name[:80]!r} in one piece in {source.name}, got them one by one: "
            "save the file anew"
        )
    if said.varints:
        held = MemoryBytes(_spelled_out(source, start, size, kind.block_bytes), source.name)
        return entry(said.name, said.dims, kind, held, 0, held.size)
    return entry(said.name, said.dims, kind, source, start, size)


def _spelled_out(source: ByteRanges, start: int, size: int, width: int) -> bytes:
    """Packed varints as little-endian numbers of ``width`` bytes: how small types are stored without raw data."""
    if size > MAX_VARINTS:
        raise FileError(f"expected large weights of {source.name} as raw data, got {size} bytes of varints")
    raw = source.read(start, size)
    ends = np.flatnonzero(raw < 128)
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else ends
    lengths = ends - starts + 1
    if (size and (not ends.size or ends[-1] != size - 1)) or (lengths > 10).any():
        raise FileError(f"expected numbers at {start} of {source.name}, got something else: the file is damaged")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max(initial=0))):
        there = lengths > place
        bits: Array = (raw[starts[there] + place] & 127).astype(np.uint64)
        values[there] |= bits << np.uint64(7 * place)
    return values.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
