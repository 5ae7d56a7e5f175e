"""Block formats of ggml, as GGUF files hold them: scales and small integers, brought to float32.

Source: ggml, github.com/ggml-org/ggml, ``ggml-common.h`` (layout of the blocks) and ``ggml-quants.c`` (what they mean).
"""

from collections.abc import Callable

import ml_dtypes
import numpy as np

from minutia.core.digest import Array
from minutia.models.number_formats import FORMATS, NumberFormat, unpack_int4

Blocks = Callable[[Array], Array]
"""uint8 (blocks, block_bytes) -> float32, the numbers of each block in order."""
LEVELS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.float32)
"""The sixteen values of the IQ4 formats."""


def _half(blocks: Array, at: int) -> Array:
    """A float16 of every block as float32 (blocks, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Array) -> Array:
    """(n, bytes) -> uint8 (n, 2 * bytes): the low halves of all bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=-1)


def _bits(packed: Array, shifts: range, mask: int) -> Array:
    """(n, bytes) -> uint8 (n, shifts, bytes): the same bits of all bytes, one shift after the other."""
    return (packed[:, None, :] >> np.array(shifts, np.uint8)[:, None]) & np.uint8(mask)


def _scaled(numbers: Array, scale: Array, shift: Array | None = None) -> Array:
    found = numbers.astype(np.float32)
    found *= scale
    if shift is not None:
        found += shift
    return found


def _q4_0(b: Array) -> Array:
    return _scaled(_nibbles(b[:, 2:]).astype(np.int8) - 8, _half(b, 0))


def _q4_1(b: Array) -> Array:
    return _scaled(_nibbles(b[:, 4:]), _half(b, 0), _half(b, 2))


def _fifth_bits(four: Array) -> Array:
    """uint8 (n, 4) -> (n, 32): the bits of a little-endian word, worth sixteen each."""
    return np.unpackbits(four, axis=1, bitorder="little") << np.uint8(4)


def _q5_0(b: Array) -> Array:
    numbers = (_nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6])).astype(np.int8) - 16
    return _scaled(numbers, _half(b, 0))


def _q5_1(b: Array) -> Array:
    return _scaled(_nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8]), _half(b, 0), _half(b, 2))


def _q8_0(b: Array) -> Array:
    return _scaled(b[:, 2:].view(np.int8), _half(b, 0))


def _q2_k(b: Array) -> Array:
    scales, packed = b[:, :16, None], b[:, 16:80].reshape(-1, 32)
    numbers = _bits(packed, range(0, 8, 2), 3).reshape(len(b), 16, 16)
    gain = _half(b, 80)[:, None] * (scales & 15)
    return _scaled(numbers, gain, -(_half(b, 82)[:, None] * (scales >> 4)))


def _q3_k(b: Array) -> Array:
    packed = b[:, 96:108]
    low = _nibbles(packed[:, :8])
    high = _bits(packed[:, 8:], range(0, 8, 2), 3).reshape(len(b), 16) << np.uint8(4)
    scales = (low | high).astype(np.int8)[:, :, None] - 32
    numbers = _bits(b[:, 32:96].reshape(-1, 32), range(0, 8, 2), 3).reshape(len(b), 8, 32)
    absent = _bits(b[:, :32], range(8), 1) ^ 1
    numbers = numbers.astype(np.int8) - (absent << np.uint8(2)).astype(np.int8)
    return _scaled(numbers.reshape(len(b), 16, 16), _half(b, 108)[:, None] * scales.astype(np.float32))


def _scales_and_shifts(packed: Array) -> tuple[Array, Array]:
    """Twelve bytes -> eight scales and eight shifts of six bits, uint8 (n, 8) each."""
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (third & 15) | (first >> 6 << 4)], axis=1)
    shifts = np.concatenate([second & 63, (third >> 4) | (second >> 6 << 4)], axis=1)
    return scales, shifts


def _four_or_five(b: Array, numbers: Array) -> Array:
    """Both K formats of four and five bits: eight groups of 32 numbers, with a scale and a shift each."""
    scales, shifts = _scales_and_shifts(b[:, 4:16])
    return _scaled(numbers, (_half(b, 0) * scales)[:, :, None], -(_half(b, 2) * shifts)[:, :, None])


def _q4_k(b: Array) -> Array:
    return _four_or_five(b, _nibbles(b[:, 16:].reshape(-1, 32)).reshape(-1, 8, 32))


def _q5_k(b: Array) -> Array:
    low = _nibbles(b[:, 48:].reshape(-1, 32)).reshape(-1, 8, 32)
    return _four_or_five(b, low | (_bits(b[:, 16:48], range(8), 1) << np.uint8(4)))


def _q6_k(b: Array) -> Array:
    low = _nibbles(b[:, :128].reshape(-1, 64)).reshape(-1, 8, 32)
    high = _bits(b[:, 128:192].reshape(-1, 32), range(0, 8, 2), 3).reshape(-1, 8, 32)
    numbers = (low | (high << np.uint8(4))).astype(np.int8) - 32
    gain = _half(b, 208) * b[:, 192:208].view(np.int8).astype(np.float32)
    return _scaled(numbers.reshape(-1, 16, 16), gain[:, :, None])


def _q8_k(b: Array) -> Array:
    scale = np.ascontiguousarray(b[:, :4]).view("<f4")
    return _scaled(b[:, 4:260].view(np.int8), scale)


def _iq4_nl(b: Array) -> Array:
    return LEVELS[_nibbles(b[:, 2:])] * _half(b, 0)


def _iq4_xs(b: Array) -> Array:
    high = np.ascontiguousarray(b[:, 2:4]).view("<u2") >> np.arange(0, 16, 2, dtype=np.uint16)
    low = unpack_int4(b[:, 4:8], signed=False).reshape(-1, 8)
    scales = (low | (high & 3).astype(np.int8) << 4).astype(np.float32) - 32
    return LEVELS[_nibbles(b[:, 8:].reshape(-1, 16))].reshape(-1, 8, 32) * (_half(b, 0) * scales)[:, :, None]


def _mxfp4(b: Array) -> Array:
    known = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return known[_nibbles(b[:, 1:])] * np.ldexp(np.float32(1), b[:, :1].astype(np.int32) - 127)


def _format(name: str, block: int, block_bytes: int, decode: Blocks | None = None) -> NumberFormat:
    if decode is None:
        return NumberFormat(name, block, block_bytes)

    def decoded(raw: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # a scale may be infinite, or no number
            return decode(raw.reshape(-1, block_bytes)).reshape(-1)

    return NumberFormat(name, block, block_bytes, decoded)


GGML: dict[int, NumberFormat] = {
    0: FORMATS["float32"],
    1: FORMATS["float16"],
    2: _format("q4_0", 32, 18, _q4_0),
    3: _format("q4_1", 32, 20, _q4_1),
    6: _format("q5_0", 32, 22, _q5_0),
    7: _format("q5_1", 32, 24, _q5_1),
    8: _format("q8_0", 32, 34, _q8_0),
    10: _format("q2_k", 256, 84, _q2_k),
    11: _format("q3_k", 256, 110, _q3_k),
    12: _format("q4_k", 256, 144, _q4_k),
    13: _format("q5_k", 256, 176, _q5_k),
    14: _format("q6_k", 256, 210, _q6_k),
    15: _format("q8_k", 256, 292, _q8_k),
    16: _format("iq2_xxs", 256, 66),
    17: _format("iq2_xs", 256, 74),
    18: _format("iq3_xxs", 256, 98),
    19: _format("iq1_s", 256, 50),
    20: _format("iq4_nl", 32, 18, _iq4_nl),
    21: _format("iq3_s", 256, 110),
    22: _format("iq2_s", 256, 82),
    23: _format("iq4_xs", 256, 136, _iq4_xs),
    24: FORMATS["int8"],
    25: FORMATS["int16"],
    26: FORMATS["int32"],
    27: FORMATS["int64"],
    28: FORMATS["float64"],
    29: _format("iq1_m", 256, 56),
    30: FORMATS["bfloat16"],
    34: _format("tq1_0", 256, 54),
    35: _format("tq2_0", 256, 66),
    39: _format("mxfp4", 32, 17, _mxfp4),
}
"""Number of the type in a GGUF file -> format; those without a decoder are known by their size only."""
