"""Digests: one canonical JSON, one way to hash arrays, one spelling."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def canonical_json(value: object) -> str:
    """Serialise plain data to the one JSON text that stands for it (sorted keys, ASCII, no spaces, no NaN).

    >>> canonical_json({"b": 1, "a": [True, None]})
    '{"a":[true,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def sha256(data: bytes) -> str:
    """Hash bytes, spelled ``sha256:<64 hex digits>``.

    >>> sha256(b"")[:14]
    'sha256:e3b0c44'
    """
    return "sha256:" + hashlib.sha256(data).hexdigest()


def array_digest(array: Array) -> str:
    """Hash an array's dtype, shape and little-endian bytes, whatever its memory layout.

    >>> array_digest(np.arange(6).reshape(2, 3)) == array_digest(np.arange(6).reshape(3, 2))
    False
    """
    plain = np.asarray(array, order="C")
    little = plain.astype(plain.dtype.newbyteorder("<"), copy=False)
    header = canonical_json([little.dtype.str, list(little.shape)]).encode()
    return sha256(header + b"\0" + little.tobytes())


def content_digest(header: object, arrays: Mapping[str, Array]) -> str:
    """Hash plain data together with named arrays: the digest of every value minutia stores.

    >>> a = {"x": np.zeros(2)}
    >>> content_digest({"k": 1}, a) == content_digest({"k": 1}, dict(a))
    True
    """
    named = {name: array_digest(array) for name, array in arrays.items()}
    return sha256(canonical_json({"header": header, "arrays": named}).encode())
