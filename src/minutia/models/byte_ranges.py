"""Parts of a file that is too large to be held: one small protocol, and the files that have it."""

import io
import os
import stat
import threading
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import FileError


class ByteRanges(Protocol):
    """Bytes that are read in parts, wherever they lie.

    ``name`` stands for them in messages and holds no secrets; ``gap`` is how many unwanted bytes between two wanted
    parts cost less than asking twice; ``lanes`` is how many threads may read at once.
    """

    name: str
    size: int
    gap: int
    lanes: int

    @property
    def bytes_read(self) -> int:
        """Bytes fetched so far."""
        ...

    def read(self, start: int, length: int) -> Array:
        """Bytes ``start`` to ``start + length`` as uint8 (length,); FileError where there are fewer."""
        ...

    def close(self) -> None:
        """Let go of the file or the connection."""
        ...


class MemoryBytes:
    """Bytes that are held anyway.

    >>> MemoryBytes(b"abcdef").read(2, 3).tobytes()
    b'cde'
    """

    gap, lanes = 0, 1

    def __init__(self, data: bytes, name: str = "bytes", bytes_read: int = 0) -> None:
        self.name, self.size, self.bytes_read = name, len(data), bytes_read
        self._data = np.frombuffer(data, np.uint8)

    def read(self, start: int, length: int) -> Array:
        """See the protocol."""
        check_range(self, start, length)
        return self._data[start : start + length].copy()

    def close(self) -> None:
        """Nothing is held open."""


class LocalBytes:
    """A regular file of this machine, read without mapping it, so that memory holds what was asked for and no more.

    A file that is absent, no regular file, unreadable or cut short while it is read is a FileError.

    >>> LocalBytes(Path("absent"))
    Traceback (most recent call last):
    minutia.core.errors.FileError: expected a checkpoint at absent, got No such file or directory: check the path
    """

    gap, lanes = 2**14, 1

    def __init__(self, path: Path) -> None:
        self.name, self.bytes_read = str(path), 0
        try:
            # A pipe would block before it could be looked at.
            if not stat.S_ISREG(path.stat().st_mode):
                raise FileError(f"expected a checkpoint at {path}, got no regular file: name the file itself")
            self._file = io.FileIO(path)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise FileError(f"expected a checkpoint at {path}, got {why}: check the path") from error
        self.size = os.fstat(self._file.fileno()).st_size
        self._lock = threading.Lock()

    def read(self, start: int, length: int) -> Array:
        """See the protocol."""
        check_range(self, start, length)
        data, done = np.empty(length, np.uint8), 0
        with self._lock:
            self._file.seek(start)
            while done < length and (count := self._file.readinto(data[done:].data)):
                done += count
            self.bytes_read += done
        if done < length:
            raise FileError(
                f"expected {length} bytes at {start} of {self.name}, got {done}: the file was cut while it was read"
            )
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Inflated:
    """A part of another file that is compressed by deflate, read as if it were not.

    Reading goes forward in bounded memory; going back starts anew. ``size`` is what the part is said to unpack to: a
    stream that holds less, or more, is a FileError.

    >>> packer = zlib.compressobj(wbits=-15)
    >>> packed = packer.compress(b"abc" * 100) + packer.flush()
    >>> Inflated(MemoryBytes(packed), 0, len(packed), 300).read(150, 4).tobytes()
    b'abca'
    """

    STEP = 2**18
    lanes = 1

    def __init__(self, source: ByteRanges, start: int, length: int, size: int) -> None:
        self.name, self.size, self.gap = source.name, size, 2**20
        self._source, self._start, self._length = source, start, length
        self._rewind()

    @property
    def bytes_read(self) -> int:
        """What was fetched of the packed file."""
        return self._source.bytes_read

    def read(self, start: int, length: int) -> Array:
        """See the protocol."""
        check_range(self, start, length)
        if start < self._at:
            self._rewind()
        while self._at < start:
            self._at += len(self._next(min(start - self._at, self.STEP)))
        data, done = np.empty(length, np.uint8), 0
        while done < length:
            piece = self._next(min(length - done, self.STEP))
            data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
            self._at += len(piece)
        if self._at == self.size and self._decompress(1):
            raise self._wrong("more")
        return data

    def close(self) -> None:
        """Close the packed file."""
        self._source.close()

    def _rewind(self) -> None:
        self._at, self._fed, self._rest = 0, 0, b""
        self._unpacker = zlib.decompressobj(wbits=-15)

    def _next(self, most: int) -> bytes:
        piece = self._decompress(most)
        if not piece:
            raise self._wrong(f"{self._at}")
        return piece

    def _decompress(self, most: int) -> bytes:
        """Unpack at most so many bytes, feeding as much as that takes; none at the end of the stream."""
        piece = b""
        while not piece and not self._unpacker.eof:
            if not self._rest and self._fed < self._length:
                count = min(self.STEP, self._length - self._fed)
                self._rest = self._source.read(self._start + self._fed, count).tobytes()
                self._fed += count
            ended = not self._rest
            try:
                piece = self._unpacker.decompress(self._rest, most)
            except zlib.error:
                raise self._wrong("a damaged stream") from None
            self._rest = self._unpacker.unconsumed_tail
            if ended and not piece:
                break
        return piece

    def _wrong(self, found: str) -> FileError:
        return FileError(f"expected {self.size} bytes unpacked from {self.name}, got {found}: the archive is damaged")


def check_range(source: ByteRanges, start: int, length: int) -> None:
    """Refuse to read outside of the bytes there are."""
    if start < 0 or length < 0 or start + length > source.size:
        raise FileError(
            f"expected bytes {start} to {start + length} in {source.name}, got a file of {source.size}: "
            "it is truncated, or its header is wrong"
        )


class Cursor:
    """A place in a file that moves on as its header is read; it fetches ``ahead`` bytes at once.

    >>> at = Cursor(MemoryBytes(b"abcdef"))
    >>> at.take(2), at.position, at.take(3)
    (b'ab', 2, b'cde')
    """

    def __init__(self, source: ByteRanges, start: int = 0, end: int | None = None, ahead: int = 2**16) -> None:
        self.position, self.end = start, source.size if end is None else end
        self.name = source.name
        self._source, self._step, self._ahead, self._from = source, ahead, b"", start

    def take(self, length: int) -> bytes:
        """The next bytes; FileError where they end before."""
        if length < 0 or length > self.end - self.position:
            raise FileError(
                f"expected {length} more bytes at {self.position} of {self._source.name}, got "
                f"{max(self.end - self.position, 0)}: the file is truncated, or its header is wrong"
            )
        begin = self.position - self._from
        if begin < 0 or begin + length > len(self._ahead):
            count = min(max(length, self._step), self.end - self.position)
            self._ahead, self._from = self._source.read(self.position, count).tobytes(), self.position
            begin = 0
        self.position += length
        return self._ahead[begin : begin + length]

    def skip(self, length: int) -> None:
        """Move on without fetching."""
        if length < 0 or length > self.end - self.position:
            self.take(length)
        self.position += length
