"""GGUF files: a header of keys and values, a table of tensors, the numbers behind it."""

import json
import struct
from collections.abc import Callable

from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges, Cursor
from minutia.models.checkpoint_entries import MAX_NAME, Contents, Entry, check_apart, check_count, entry
from minutia.models.checkpoint_ggml import GGML

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 2**16
MAX_TEXT = 2**20
MAX_KEPT = 2**22
"""Characters of metadata that are kept in all."""
MAX_DEPTH = 2
MAX_LISTED = 64
"""Entries of a list that are kept; of a longer one only its length is."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Number of a type -> its code in struct; 8 is a text, 9 a list."""
TEXT, LIST = 8, 9
Value = str | int | float | bool | list["Value"]
Beside = Callable[[str], ByteRanges]


def read_gguf(source: ByteRanges) -> Contents:
    """Entries of one file, shapes with the slowest axis first; values as text, long lists as their length.

    Source: the format of ggml, github.com/ggml-org/ggml, ``docs/gguf.md``, versions 2 and 3, little-endian.
    """
    header = _Header(source)
    if header.take(4) != MAGIC:
        raise FileError(f"expected a GGUF file in {source.name}, got another beginning: it is of another format")
    version = header.number("I")
    if version not in VERSIONS:
        raise FileError(
            f"expected GGUF of version 2 or 3, little-endian, in {source.name}, got version {version}: convert it anew"
        )
    tensors, keys = header.number("Q"), header.number("Q")
    check_count(tensors, source)
    if keys > MAX_KEYS:
        raise FileError(f"expected at most {MAX_KEYS} keys in {source.name}, got {keys}: do not trust the file")
    metadata = header.metadata(keys)
    alignment = _alignment(metadata, source)
    table = [_said(header) for _ in range(tensors)]
    base = -(-header.position // alignment) * alignment
    entries: dict[str, Entry] = {}
    for name, shape, kind, offset in table:
        if name in entries or offset % alignment or kind not in GGML:
            raise FileError(
                f"expected each tensor once, at a multiple of {alignment}, of a known type in {source.name}, got "
                f"{name[:80]!r} of type {kind} at {offset}: do not trust the file, or convert it anew"
            )
        entries[name] = entry(name, shape, GGML[kind], source, base + offset)
    check_apart(entries)
    return Contents(entries, metadata)


class _Header(Cursor):
    """Reads the values of a header, each bounded by what is left of the file."""

    def number(self, code: str) -> int:
        """One scalar; whole numbers only where the format says so."""
        size = struct.calcsize(f"<{code}")
        (value,) = struct.unpack(f"<{code}", self.take(size))
        return value

    def text(self, most: int) -> str:
        """A length and so many bytes of UTF-8."""
        length = self.number("Q")
        if length > most:
            raise self.wrong(f"a text of at most {most} bytes", str(length))
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.wrong("a text in UTF-8", "other bytes") from None

    def metadata(self, count: int) -> dict[str, str]:
        """Keys and values as text."""
        found: dict[str, str] = {}
        kept = 0
        for _ in range(count):
            key = self.text(2**16 - 1)
            value = self.value(self.number("I"), MAX_DEPTH)
            text = value if isinstance(value, str) else json.dumps(value)
            kept += len(key) + len(text)
            if key in found or kept > MAX_KEPT:
                raise self.wrong(f"every key once, and at most {MAX_KEPT} characters", f"{key[:80]!r}")
            found[key] = text
        return found

    def value(self, kind: int, depth: int) -> Value:
        """A scalar, a text, or a list; a long list gives way to its length."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == TEXT:
            return self.text(MAX_TEXT)
        if kind != LIST or not depth:
            raise self.wrong("a known type of value", str(kind))
        inner, count = self.number("I"), self.number("Q")
        size = struct.calcsize(f"<{SCALARS[inner]}") if inner in SCALARS else 8
        if count > (self.end - self.position) // size:
            raise self.wrong("a list inside the file", f"{count} entries")
        if count <= MAX_LISTED:
            return [self.value(inner, depth - 1) for _ in range(count)]
        if inner in SCALARS:
            self.skip(count * size)
        elif inner == TEXT:
            for _ in range(count):
                self.skip(int.from_bytes(self.take(8), "little"))
        else:
            raise self.wrong("a list of numbers or texts", f"{count} lists")
        return f"{count} entries"

    def wrong(self, expected: str, got: str) -> FileError:
        """The sentence for a header that cannot be right."""
        return FileError(
            f"expected {expected} at {self.position} of {self.name}, got {got}: the header is wrong, "
            "do not trust the file"
        )


def _alignment(metadata: dict[str, str], source: ByteRanges) -> int:
    text = metadata.get("general.alignment", "32")
    alignment = int(text) if text.isdecimal() and len(text) < 8 else 0
    if not 8 <= alignment <= 2**16 or alignment & (alignment - 1):
        raise FileError(
            f"expected an alignment by a power of two from 8 in {source.name}, got {text[:20]!r}: do not trust the file"
        )
    return alignment


def _said(header: _Header) -> tuple[str, list[int], int, int]:
    """Name, shape, type and offset of the next tensor."""
    name, axes = header.text(MAX_NAME), header.number("I")
    if axes > 8:
        raise header.wrong("at most 8 axes", str(axes))
    shape = [header.number("Q") for _ in range(axes)][::-1]
    return name, shape, header.number("I"), header.number("Q")
