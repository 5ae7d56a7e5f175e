"""Checkpoints written by the libraries that own the formats, and GGUF files put together by hand."""

import struct

import numpy as np
import pytest

TEXT, LIST, U32 = 8, 9, 4


def gguf_text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value):
    """Type and value, for whole numbers, texts and lists of them."""
    if isinstance(value, list):
        kind, packed = U32, b""
        for item in value:
            kind, one = gguf_value(item)
            packed += one
        return LIST, struct.pack("<IQ", kind, len(value)) + packed
    return (TEXT, gguf_text(value)) if isinstance(value, str) else (U32, struct.pack("<I", value))


def gguf_bytes(tensors, values=(), *, version=3, alignment=32, counts=(None, None), spread=1):
    """A GGUF file of ``{name: (shape, type, bytes)}``; offsets are multiplied by ``spread``."""
    header, data = b"", b""
    for key, value in dict(values).items():
        kind, packed = gguf_value(value)
        header += gguf_text(key) + struct.pack("<I", kind) + packed
    for name, (shape, kind, raw) in tensors.items():
        axes = struct.pack(f"<{len(shape)}Q", *shape[::-1])
        header += gguf_text(name) + struct.pack("<I", len(shape)) + axes + struct.pack("<IQ", kind, len(data) * spread)
        data += raw + bytes(-len(raw) % alignment)
    counted = [len(tensors) if counts[0] is None else counts[0], len(dict(values)) if counts[1] is None else counts[1]]
    head = b"GGUF" + struct.pack("<IQQ", version, *counted) + header
    return head + bytes(-len(head) % alignment) + data


def assert_same(checkpoint, wanted):
    """Every tensor equals its original as float32, read whole, by rows in any order, and in blocks."""
    assert set(checkpoint.names) == set(wanted)
    for name, value in wanted.items():
        known = np.asarray(value).astype(np.float32)
        info = checkpoint.info(name)
        assert info.shape == known.shape, name
        found = checkpoint.read(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, known, err_msg=name)
        for nbytes in (4, 60, 2**20):
            parts = list(checkpoint.blocks(name, nbytes))
            assert all(part.ndim == known.ndim and part.dtype == np.float32 for part in parts)
            np.testing.assert_array_equal(np.concatenate([p.ravel() for p in parts]), known.ravel(), err_msg=name)
        if known.ndim:
            rows = np.random.default_rng(0).integers(0, max(len(known), 1), 5 if len(known) else 0)
            np.testing.assert_array_equal(checkpoint.read(name, rows), known[rows], err_msg=name)
            for part in (slice(1, None), slice(None, None, 2), slice(-2, None), slice(5, 2), slice(None, None, -1)):
                np.testing.assert_array_equal(checkpoint.read(name, part), known[part], err_msg=name)


def onnx_model(tensors):
    helper = pytest.importorskip("onnx").helper
    x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y], tensors)
    model = helper.make_model(graph, producer_name="somebody")
    helper.set_model_props(model, {"author": "me"})
    return model
