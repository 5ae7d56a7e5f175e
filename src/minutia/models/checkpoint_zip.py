"""Members of a zip archive, as npz and torch files are, found without unpacking anything."""

import io
import itertools
import zipfile
from dataclasses import dataclass

from minutia.core.errors import FileError
from minutia.models.byte_ranges import ByteRanges, Inflated

MAX_DIRECTORY = 2**24
"""Bytes that are read at once on the way to the list of members."""
MAX_UNPACKED = 2**30
MAX_RATIO = 200
"""An archive may unpack to this many times its size; below MAX_UNPACKED the ratio does not matter."""
LOCAL_HEADER = 30


@dataclass(frozen=True)
class Member:
    """A file in the archive: where its bytes lie, and how many they are once unpacked."""

    name: str
    start: int
    packed: int
    size: int
    stored: bool

    def opened(self, source: ByteRanges) -> tuple[ByteRanges, int]:
        """The member's bytes, and where in them it begins: the archive itself if it is stored unpacked."""
        if self.stored:
            return source, self.start
        return Inflated(source, self.start, self.packed, self.size), 0


def read_members(source: ByteRanges) -> list[Member]:
    """Members in the order of the archive, checked: inside it, apart, not encrypted, no bomb. FileError otherwise."""
    try:
        with zipfile.ZipFile(_Seekable(source)) as archive:
            found = [_member(said, source) for said in archive.infolist() if not said.filename.endswith("/")]
    # NotImplementedError is what zipfile raises for a version that it does not know.
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, IndexError) as error:
        raise FileError(f"expected an archive in {source.name}, got {str(error)[:80]}: it is damaged") from None
    found.sort(key=lambda member: member.start)
    for before, after in itertools.pairwise(found):
        if after.start < before.start + before.packed or after.name == before.name:
            raise FileError(
                f"expected members apart in {source.name}, got {after.name[:80]!r} inside {before.name[:80]!r}: "
                "do not trust the archive"
            )
    if len({member.name for member in found}) < len(found):
        raise FileError(f"expected every name once in {source.name}, got one twice: do not trust the archive")
    total = sum(member.size for member in found)
    if total > max(MAX_UNPACKED, MAX_RATIO * source.size):
        raise FileError(
            f"expected an archive that unpacks to at most {MAX_RATIO} times its size, got {total} bytes in "
            f"{source.name} of {source.size}: it is a bomb, or store it without compression"
        )
    return found


def _member(said: zipfile.ZipInfo, source: ByteRanges) -> Member:
    if said.flag_bits & 1 or said.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FileError(
            f"expected members stored plainly or by deflate in {source.name}, got {said.filename[:80]!r} of method "
            f"{said.compress_type}: save it anew"
        )
    head = source.read(said.header_offset, LOCAL_HEADER).tobytes() if said.header_offset >= 0 else b""
    start = said.header_offset + LOCAL_HEADER + int.from_bytes(head[26:28], "little")
    start += int.from_bytes(head[28:30], "little")
    stored = said.compress_type == zipfile.ZIP_STORED
    whole = head[:4] == b"PK\x03\x04" and start + said.compress_size <= source.size
    if not whole or (stored and said.compress_size != said.file_size):
        raise FileError(
            f"expected {said.filename[:80]!r} inside the {source.size} bytes of {source.name}, got bytes {start} to "
            f"{start + said.compress_size}: the archive is truncated or damaged"
        )
    return Member(said.filename, start, said.compress_size, said.file_size, stored)


class _Seekable(io.RawIOBase):
    """The archive as a file object, with a limit on what is read at once."""

    def __init__(self, source: ByteRanges) -> None:
        self._source, self._at = source, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, self._source.size)
        if self._at < 0:
            raise ValueError("a place before its beginning")
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(self._source.size - self._at, 0)
        count = left if size < 0 else min(size, left)
        if count > MAX_DIRECTORY:
            raise ValueError(f"a list of members of {count >> 20} MiB")
        data = self._source.read(self._at, count).tobytes()
        self._at += count
        return data
