"""Numbers as they are stored in checkpoints, brought to float32: plain types, eight bits, four bits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from minutia.core.digest import Array

Decoder = Callable[[Array], Array]
"""Stored bytes uint8 (blocks * block_bytes,) -> float32 (blocks * block,)."""


@dataclass(frozen=True)
class NumberFormat:
    """How ``block`` numbers are stored in ``block_bytes`` bytes; plain types have blocks of one.

    ``decode`` turns whole blocks, uint8 (blocks * block_bytes,), into float32 (blocks * block,); float64 and large
    integers are rounded. Without it a format is known by its size only.

    >>> FORMATS["bfloat16"].decode(np.array([0x80, 0x3F, 0, 0xC0], np.uint8)).tolist()
    [1.0, -2.0]
    """

    name: str
    block: int
    block_bytes: int
    decode: Decoder | None = None

    def stored(self, count: int) -> int:
        """Bytes that so many numbers take; the last block may be filled up.

        >>> FORMATS["int4"].stored(5), FORMATS["float16"].stored(5)
        (3, 10)
        """
        return -(-count // self.block) * self.block_bytes


def unpack_int4(packed: Array, *, signed: bool = True) -> Array:
    """Two numbers per byte, the low half first: uint8 (n,) -> int8 (2 n,), -8 to 7 if ``signed``, else 0 to 15.

    >>> unpack_int4(np.array([0xF1, 0x80], np.uint8)).tolist()
    [1, -1, 0, -8]
    >>> unpack_int4(np.array([0xF1], np.uint8), signed=False).tolist()
    [1, 15]
    """
    halves = np.empty((packed.size, 2), np.uint8)
    np.bitwise_and(packed.ravel(), 15, out=halves[:, 0])
    np.right_shift(packed.ravel(), 4, out=halves[:, 1])
    numbers = halves.reshape(-1).view(np.int8)
    return (numbers ^ np.int8(8)) - np.int8(8) if signed else numbers


def of_dtype(dtype: np.dtype[Any]) -> NumberFormat:
    """The format of a numpy type, big-endian ones included; what is no number has no decoder.

    >>> of_dtype(np.dtype(">f4")).decode(np.array([0x3F, 0x80, 0, 0], np.uint8)).tolist(), of_dtype(np.dtype("U2")).name
    ([1.0], 'str64')
    """
    if dtype.name in FORMATS and (dtype.itemsize == 1 or dtype.newbyteorder("<") == dtype):
        return FORMATS[dtype.name]
    known = dtype.name in FORMATS and dtype.kind in "fiu"
    return NumberFormat(dtype.name, 1, dtype.itemsize, _plain(dtype) if known else None)


def _plain(dtype: np.dtype[Any]) -> Decoder:
    def decode(raw: Array) -> Array:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite
            return raw.view(dtype).astype(np.float32, copy=False)

    return decode


def _little(name: str) -> NumberFormat:
    """A type that numpy knows, little-endian."""
    dtype = np.dtype(name).newbyteorder("<")
    return NumberFormat(name, 1, dtype.itemsize, _plain(dtype))


def _bfloat16(raw: Array) -> Array:
    """The upper half of a float32."""
    return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _looked_up(code: str, dtype: str) -> Decoder:
    """By a table of all values: several times faster than numpy's own conversion of short floats."""
    return lambda raw: _table(code, dtype).take(raw.view(code), mode="clip")


@cache
def _table(code: str, dtype: str) -> Array:
    known = np.dtype(dtype) if dtype == "float16" else np.dtype(getattr(ml_dtypes, dtype))
    codes = np.arange(2 ** (8 * np.dtype(code).itemsize), dtype=code)
    return codes.astype(codes.dtype.newbyteorder("=")).view(known).astype(np.float32)


def _nibbles(dtype: str) -> Decoder:
    """Four-bit floats, two per byte, the low half first."""
    return lambda raw: _fours(dtype).take(unpack_int4(raw, signed=False), mode="clip")


@cache
def _fours(dtype: str) -> Array:
    return np.arange(16, dtype=np.uint8).view(getattr(ml_dtypes, dtype)).astype(np.float32)


def _int4(raw: Array) -> Array:
    return unpack_int4(raw).astype(np.float32)


def _uint4(raw: Array) -> Array:
    return unpack_int4(raw, signed=False).astype(np.float32)


EIGHT_BIT_FLOATS = (
    *("float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"),
    *("float8_e4m3", "float8_e3m4"),
)
FORMATS: dict[str, NumberFormat] = {
    found.name: found
    for found in (
        *(_little(name) for name in ("float64", "float32", "int64", "int32", "int16", "int8")),
        *(_little(name) for name in ("uint64", "uint32", "uint16", "uint8")),
        NumberFormat("bool", 1, 1, lambda raw: (raw != 0).astype(np.float32)),
        NumberFormat("float16", 1, 2, _looked_up("<u2", "float16")),
        NumberFormat("bfloat16", 1, 2, _bfloat16),
        *(NumberFormat(name, 1, 1, _looked_up("u1", name)) for name in EIGHT_BIT_FLOATS),
        NumberFormat("float4_e2m1fn", 2, 1, _nibbles("float4_e2m1fn")),
        NumberFormat("int4", 2, 1, _int4),
        NumberFormat("uint4", 2, 1, _uint4),
        NumberFormat("complex64", 1, 8),
        NumberFormat("complex128", 1, 16),
        NumberFormat("float6_e2m3fn", 4, 3),
        NumberFormat("float6_e3m2fn", 4, 3),
    )
}
"""Name as numpy or ml_dtypes spells it -> format, little-endian."""
