"""Files behind ``s3://``, by range requests of obstore: keys come from the environment alone."""

import os
import re
import threading
from datetime import timedelta
from typing import Any

import numpy as np

from minutia.core.digest import Array
from minutia.core.errors import FileError, MissingExtraError, UsageError
from minutia.models.byte_ranges import check_range
from minutia.models.checkpoint_http import PART, AbsentError

FIRST = 2**16
"""Bytes that the first request brings along: most headers lie in them."""
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
"""Without any of these in the environment requests are not signed: the bucket must be public."""
ATTEMPTS, PATIENCE = 4, timedelta(seconds=60)
CHUNK = 2**20


class S3Bytes:
    """An object of a bucket, ``s3://bucket/key``, on Amazon's servers or on those of AWS_ENDPOINT_URL.

    AWS_REGION, AWS_ALLOW_HTTP and the like are obeyed as obstore names them. FileError for what is absent, refused,
    changed between two requests (its size, ETag or date) or not the part that was asked for; MissingExtraError without
    obstore.

    >>> S3Bytes("s3://bucket")
    Traceback (most recent call last):
    minutia.core.errors.UsageError: expected s3://bucket/key, got 's3://bucket'
    """

    gap, lanes = 2**15, 8

    def __init__(self, address: str) -> None:
        bucket, self._key = parted(address)
        self.name, self.bytes_read = address, 0
        self._counting = threading.Lock()
        self._same: tuple[str, object] = ("", None)
        self._store = _store(bucket, self.name)
        self.size, self._head = 0, b""
        self._head = self._fetched(0, FIRST)

    def read(self, start: int, length: int) -> Array:
        """See ``ByteRanges``."""
        check_range(self, start, length)
        known = self._head[start : start + length]
        parts, at = [known], start + len(known)
        while at < start + length:
            count = min(PART, start + length - at)
            parts.append(self._fetched(at, count))
            at += count
        return np.frombuffer(b"".join(parts), np.uint8).copy()

    def close(self) -> None:
        """Nothing is held open."""

    def _fetched(self, start: int, count: int) -> bytes:
        """One part; the first one tells the object's size and tag, which later ones must have as well."""
        import obstore
        from obstore.exceptions import BaseError

        options: Any = {"range": (start, start + count)} | ({"if_match": self._same[0]} if self._same[0] else {})
        try:
            answer = obstore.get(self._store, self._key, options=options)
            found, size = (answer.meta["e_tag"] or "", answer.meta["last_modified"]), answer.meta["size"]
            if not self._head:
                self.size, self._same = size, found
            if (size, *found) != (self.size, *self._same):
                raise _replaced(self.name)
            return self._body(answer, start, min(start + count, self.size))
        except FileError:
            raise
        except (BaseError, OSError) as error:
            raise self._wrong(error, start, count) from None

    def _body(self, answer: Any, start: int, stop: int) -> bytes:
        """Exactly the bytes from ``start`` to ``stop``."""
        data = bytearray()
        if tuple(answer.range) == (start, stop):
            for piece in answer.stream(min_chunk_size=CHUNK):
                data += piece
                if len(data) > stop - start:
                    break
        with self._counting:
            self.bytes_read += len(data)
        if len(data) != stop - start:
            raise FileError(
                f"expected bytes {start} to {stop} of {self.name}, got {len(data)} of them: do not trust the server"
            )
        return bytes(data)

    def _wrong(self, error: Exception, start: int, count: int) -> FileError:
        """What went wrong in a sentence, without the text of the answer."""
        from obstore import exceptions as known

        if isinstance(error, known.NotFoundError | FileNotFoundError):
            return AbsentError(f"expected {self.name}, got no such object: check the bucket and the key")
        if isinstance(error, known.PermissionDeniedError | known.UnauthenticatedError):
            return FileError(f"expected {self.name}, got no access: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        if isinstance(error, known.PreconditionError):
            return _replaced(self.name)
        return FileError(
            f"expected bytes {start} to {start + count} of {self.name}, got {type(error).__name__}: check "
            "AWS_ENDPOINT_URL and AWS_REGION, or download the file"
        )


def parted(address: str) -> tuple[str, str]:
    """The bucket and the key of an address; UsageError for anything else.

    >>> parted("s3://bucket/folder/model.safetensors")
    ('bucket', 'folder/model.safetensors')
    """
    found = re.fullmatch(r"s3://([A-Za-z0-9][\w.-]{1,254})/(.{1,1024})", address, re.ASCII | re.IGNORECASE)
    parts = found[2].split("/") if found else [""]
    if not found or not address.isprintable() or not all(part.strip(".") for part in parts):
        raise UsageError(f"expected s3://bucket/key, got {address[:120]!r}")
    return found[1], found[2]


def _store(bucket: str, name: str) -> Any:
    """The client of a bucket, set up by the environment."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import S3Store
    except ImportError:
        raise MissingExtraError("obstore", "s3", "a checkpoint behind s3://") from None
    public: dict[str, Any] = {} if any(os.environ.get(key) for key in KEYS) else {"skip_signature": True}
    try:
        return S3Store(bucket, retry_config={"max_retries": ATTEMPTS, "retry_timeout": PATIENCE}, **public)
    except (BaseError, ValueError) as error:
        raise UsageError(f"expected AWS_… settings that hold for {name}, got {type(error).__name__}: check") from None


def _replaced(name: str) -> FileError:
    return FileError(
        f"expected the same object at {name} all the time, got another one: it was replaced while it was read, "
        "start again"
    )
