"""Stored numbers against numpy, ml_dtypes, and the block formats number by number."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models import ggml_scalar

from minutia.models.checkpoint_ggml import GGML
from minutia.models.number_formats import EIGHT_BIT_FLOATS, FORMATS, of_dtype, unpack_int4

ALL16 = np.arange(2**16, dtype=np.uint16)
ALL8 = np.arange(2**8, dtype=np.uint8)


@pytest.mark.parametrize(("name", "known"), [("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)])
def test_every_short_float_is_the_libraries(name, known):
    found = FORMATS[name].decode(ALL16.view(np.uint8))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, ALL16.view(known).astype(np.float32))


@pytest.mark.parametrize("name", EIGHT_BIT_FLOATS)
def test_every_eight_bit_float_is_the_library_s(name):
    known = ALL8.view(getattr(ml_dtypes, name)).astype(np.float32)
    np.testing.assert_array_equal(FORMATS[name].decode(ALL8), known)


def test_four_bit_numbers_are_the_library_s():
    low_first = np.stack([ALL8 & 15, ALL8 >> 4], axis=1).ravel()
    for name in ("float4_e2m1fn", "int4", "uint4"):
        known = low_first.view(getattr(ml_dtypes, name)).astype(np.float32)
        np.testing.assert_array_equal(FORMATS[name].decode(ALL8), known)


@given(st.lists(st.integers(-8, 7), max_size=40))
def test_packed_integers_come_back(numbers):
    even = np.array([*numbers, *numbers], np.int8)
    packed = (even[::2] & 15).astype(np.uint8) | (even[1::2] & 15).astype(np.uint8) << 4
    assert unpack_int4(packed).tolist() == even.tolist()
    assert unpack_int4(packed, signed=False).tolist() == (even & 15).tolist()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"])
def test_numpy_types_of_both_byte_orders(code, order):
    values = (np.random.default_rng(0).normal(size=50) * 40).astype(f"{order}{code}")
    found = of_dtype(values.dtype)
    assert found.block_bytes == values.itemsize and found.name == np.dtype(code).name
    np.testing.assert_array_equal(found.decode(values.view(np.uint8)), values.astype(np.float32))


@pytest.mark.parametrize("dtype", ["U5", "S3", "M8[s]", "c8", "V2"])
def test_what_is_no_number_has_a_size_and_no_decoder(dtype):
    found = of_dtype(np.dtype(dtype))
    assert found.decode is None and found.block_bytes == np.dtype(dtype).itemsize


@pytest.mark.parametrize("kind", ggml_scalar.KINDS)
def test_blocks_of_ggml_number_by_number(kind):
    rng, form = np.random.default_rng(kind), GGML[kind]
    blocks = rng.integers(0, 256, (20, form.block_bytes), np.uint8)
    for at in ggml_scalar.HALVES.get(kind, (0,)):
        blocks[:, at : at + 2] = rng.normal(size=(20, 1)).astype("<f2").view(np.uint8)
    if kind == 15:
        blocks[:, :4] = rng.normal(size=(20, 1)).astype("<f4").view(np.uint8)
    blocks[:, 0] &= 127 if kind == 39 else 255
    wanted = [number for block in blocks for number in ggml_scalar.KINDS[kind](block.tobytes())]
    found = form.decode(blocks.ravel())
    assert found.dtype == np.float32 and len(found) == 20 * form.block
    np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-5)


def test_every_block_format_with_a_decoder_is_compared():
    assert {kind for kind, form in GGML.items() if form.block > 1 and form.decode} == set(ggml_scalar.KINDS)


@given(st.integers(0, 1000), st.sampled_from(sorted(FORMATS)))
def test_stored_size_is_that_of_whole_blocks(count, name):
    form = FORMATS[name]
    assert (
        form.stored(count) * form.block
        >= count * form.block_bytes
        > (form.stored(count) - form.block_bytes) * (form.block)
        or not count
    )
