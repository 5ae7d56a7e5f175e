"""Safetensors, one file or many with an index: the header is JSON, the numbers follow it."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges
from minutia.models.checkpoint_entries import Contents, Entry, check_apart, check_count, entry
from minutia.models.number_formats import FORMATS

MAX_HEADER = 16 * 2**20
MAX_MARKS = 2**19
"""Objects, or lists, in a JSON header: what they take in memory is many times what they take in the file."""
NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F6_E2M3": "float6_e2m3fn",
    "F6_E3M2": "float6_e3m2fn",
    "F4": "float4_e2m1fn",
    "C64": "complex64",
}
"""Type in the header -> name in number_formats."""
Opener = Callable[[str], ByteRanges]
"""Name of a file beside the first one -> its bytes."""


def read_safetensors(source: ByteRanges) -> Contents:
    """Entries of one file, checked as the format demands: no holes, no overlaps, nothing outside.

    Source: the format of Hugging Face's safetensors, github.com/huggingface/safetensors.
    """
    length = int.from_bytes(source.read(0, min(8, source.size)).tobytes(), "little")
    if source.size < 8 or length > source.size - 8:
        raise FileError(
            f"expected a header of {length} bytes in {source.name}, got a file of {source.size}: it is truncated, "
            "or no safetensors file"
        )
    if length > MAX_HEADER:
        raise FileError(
            f"expected a header of at most {MAX_HEADER >> 20} MiB in {source.name}, got {length >> 20}: "
            "do not trust the file"
        )
    header = parsed_json(source.read(8, length).tobytes(), source.name)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _wrong(source, "__metadata__")
    check_count(len(header), source)
    entries = {name: _entry(name, said, source, 8 + length) for name, said in header.items()}
    entries = dict(sorted(entries.items(), key=lambda pair: pair[1].start))
    check_apart(entries)
    if sum(found.info.nbytes for found in entries.values()) != source.size - 8 - length:
        raise FileError(
            f"expected {source.size - 8 - length} bytes of tensors in {source.name}, got a header with "
            f"{sum(found.info.nbytes for found in entries.values())}: the file is truncated, or its header is wrong"
        )
    return Contents(entries, metadata)


def read_index(source: ByteRanges, beside: Opener, read: Callable[[ByteRanges], Contents]) -> Contents:
    """Entries of all files that an index (``weight_map``: tensor -> file) names; each must hold what it is said to."""
    if source.size > MAX_HEADER:
        raise FileError(f"expected an index of at most {MAX_HEADER >> 20} MiB, got {source.name}: do not trust it")
    places = parsed_json(source.read(0, source.size).tobytes(), source.name).get("weight_map")
    if not isinstance(places, dict) or not places or not all(is_plain(file) for file in places.values()):
        raise FileError(
            f"expected tensors and the files beside it that hold them as weight_map in {source.name}, got "
            f"{str(places)[:80]}: do not trust the index"
        )
    check_count(len(places), source)
    found = {file: read(beside(file)) for file in sorted(set(places.values()))}
    entries = {name: _indexed(name, file, found[file].entries, source) for name, file in places.items()}
    metadata = {key: value for part in found.values() for key, value in part.metadata.items()}
    return Contents(entries, metadata)


def parsed_json(text: bytes, name: str) -> dict[str, Any]:
    """An object of JSON that may be hostile: bounded in depth and in what it unpacks to; a name stands in it once.

    >>> parsed_json(b'{"a": 1, "a": 2}', "header")
    Traceback (most recent call last):
    minutia.core.errors.FileError: expected JSON in header, got 'a' twice: do not trust the file
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise FileError(f"expected JSON in {name}, got {twice[:80]!r} twice: do not trust the file")
        return found

    if text.count(b"{") > MAX_MARKS or text.count(b"[") > MAX_MARKS:
        raise FileError(f"expected a JSON header of tensors in {name}, got far too many parts: do not trust the file")
    try:
        found = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        why = "lists in lists without end" if isinstance(error, RecursionError) else str(error)[:120]
        raise FileError(f"expected JSON in {name}, got {why}: the file is damaged, or of another format") from None
    if not isinstance(found, dict):
        raise FileError(f"expected a JSON object in {name}, got {type(found).__name__}: do not trust the file")
    return found


def _entry(name: str, said: object, source: ByteRanges, base: int) -> Entry:
    if not isinstance(said, Mapping) or set(said) != {"dtype", "shape", "data_offsets"}:
        raise _wrong(source, name)
    shape, offsets, dtype = said["shape"], said["data_offsets"], said["dtype"]
    whole = isinstance(offsets, list) and len(offsets) == 2 and all(type(o) is int and 0 <= o < 2**63 for o in offsets)
    if not isinstance(shape, list) or not whole or not isinstance(dtype, str) or offsets[0] > offsets[1]:
        raise _wrong(source, name)
    if dtype not in NAMES:
        raise FileError(
            f"expected a known type of number for {name[:80]!r} in {source.name}, got {dtype[:40]!r}: "
            f"known are {', '.join(NAMES)}"
        )
    return entry(name, shape, FORMATS[NAMES[dtype]], source, base + offsets[0], offsets[1] - offsets[0])


def _indexed(name: str, file: str, held: Mapping[str, Entry], source: ByteRanges) -> Entry:
    if name not in held:
        raise FileError(
            f"expected {name[:80]!r} in {file[:80]}, as {source.name} says, got a file without it: download it anew"
        )
    return held[name]


def is_plain(file: object) -> bool:
    """Whether it is the name of a file, without any way out of its folder, under the rules of every system."""
    return (
        isinstance(file, str)
        and 0 < len(file) <= 255
        and file.isprintable()
        and not set(file) & set('/\\:?#%"')
        and file.strip(".") != ""
    )


def _wrong(source: ByteRanges, name: str) -> FileError:
    return FileError(
        f"expected type, shape and offsets of {name[:80]!r} in the header of {source.name}, got something else: "
        "the file is damaged, do not trust it"
    )
